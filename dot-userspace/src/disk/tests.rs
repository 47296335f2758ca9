//! Which links, second names and folders lead to a file, and which are refused.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
};

use super::*;

const OTHER: u32 = 65_534;

fn content(file: io::Result<File>) -> Result<String, String> {
    let file = file.map_err(|error| error.to_string())?;
    io::read_to_string(file).map_err(|error| error.to_string())
}

/// Goal: links of root or dotd's user are followed, however many; another user's lead to that user's files only.
/// Method: a key of root and one of the other user, each through a link of each; a folder of the other. As root.
///
#[test]
fn a_link_of_another_user_leads_to_that_users_files() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::create_dir(at("theirs")).unwrap();
    fs::write(at("secret"), "root's").unwrap();
    fs::write(at("theirs/key"), "theirs").unwrap();
    symlink(at("secret"), at("link")).unwrap();
    symlink("link", at("link-to-link")).unwrap();
    symlink(Path::new("..").join("secret"), at("theirs/stolen")).unwrap();
    symlink("key", at("theirs/own")).unwrap();
    symlink("theirs", at("folder")).unwrap();
    assert_eq!(content(open_named(&at("link-to-link"))).as_deref(), Ok("root's"));
    assert_eq!(content(open_named(&at("folder/stolen"))).as_deref(), Ok("root's"), "our own link");
    assert!(content(open_own(&at("link"))).is_err(), "the last step is no link");
    assert_eq!(content(open_own(&at("secret"))).as_deref(), Ok("root's"));
    fs::hard_link(at("secret"), at("second")).unwrap();
    assert!(content(open_own(&at("secret"))).is_err(), "it has a second name");
    symlink("loop", at("loop")).unwrap();
    assert!(open_named(&at("loop")).is_err());
    if !geteuid().is_root() {
        return;
    }
    for name in ["theirs", "theirs/key"] {
        chown(at(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    for name in ["theirs/stolen", "theirs/own"] {
        lchown(at(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    let refused = content(open_named(&at("folder/stolen"))).unwrap_err();
    assert_eq!(refused, "a symbolic link of uid 65534 leads to a file of uid 0");
    assert_eq!(content(open_named(&at("folder/own"))).as_deref(), Ok("theirs"));
    assert_eq!(content(open_named(&at("folder/key"))).as_deref(), Ok("theirs"));
    symlink("..", at("theirs/up")).unwrap();
    lchown(at("theirs/up"), Some(OTHER), Some(OTHER)).unwrap();
    assert!(open_folder(&at("theirs/up")).is_err(), "another user's link to a folder");
    assert!(open_folder(&at("folder")).is_ok());
    symlink(scratch.path(), at("theirs/out")).unwrap();
    lchown(at("theirs/out"), Some(OTHER), Some(OTHER)).unwrap();
    assert!(make_folder(&at("theirs/out/a/b"), 0o700).is_err(), "another user's link on the way");
    assert!(!at("a").exists(), "nothing is made where it leads");
}

/// Goal: missing folders are made, once, with their mode. Method: three levels, twice; a file in place of a
/// folder; `..` through a missing folder.
#[test]
fn absent_folders_are_made() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("one/two/three");
    for _ in 0..2 {
        let made = make_folder(&path, 0o700).unwrap();
        assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }
    assert!(path.is_dir());
    fs::write(path.join("file"), "").unwrap();
    assert!(make_folder(&path.join("file/four"), 0o700).is_err());
    assert!(make_folder(&path.join("absent/../five"), 0o700).is_err());
    assert!(!path.join("five").exists());
}

/// Goal: a hard link to another user's file, made by the owner of a folder, or by any user in a folder that is open
/// to all, is not accepted as a file of the config; an operator's own hard links are. Method: hard links of a file
/// of root's in folders of root's, of another user, and of folders that every user may write. As root.
#[test]
fn a_second_name_of_anothers_file_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("secret"), "root's").unwrap();
    for folder in ["ours", "theirs", "open"] {
        fs::create_dir(at(folder)).unwrap();
        fs::hard_link(at("secret"), at(folder).join("key")).unwrap();
    }
    fs::write(at("theirs/own"), "theirs").unwrap();
    fs::hard_link(at("theirs/own"), at("theirs/second")).unwrap();
    for name in ["theirs", "theirs/own"] {
        chown(at(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(content(open_named(&at("ours/key"))).as_deref(), Ok("root's"));
    assert_eq!(content(open_named(&at("theirs/second"))).as_deref(), Ok("theirs"));
    for (name, uid) in [("theirs/key", OTHER), ("open/key", 0)] {
        let refused = content(open_named(&at(name))).unwrap_err();
        let why = format!(
            "a file of uid 0 with 4 names, in a folder where others may make names (its owner: uid {uid})"
        );
        assert_eq!(refused, why);
    }
    // A file with only one name is accepted in any folder.
    fs::write(at("theirs/given"), "root's").unwrap();
    assert_eq!(content(open_named(&at("theirs/given"))).as_deref(), Ok("root's"));
}

/// Goal: opening never waits, and a folder within another one must be a real folder there. Method: a pipe without
/// a writer; a link, a file and `..` in place of a folder.
#[test]
fn nothing_waits_and_nothing_leads_out() {
    let scratch = tempfile::tempdir().unwrap();
    let pipe = scratch.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR).unwrap();
    assert!(!open_named(&pipe).unwrap().metadata().unwrap().is_file());
    assert!(open_own(&pipe).is_err());
    fs::create_dir(scratch.path().join("real")).unwrap();
    symlink("real", scratch.path().join("bent")).unwrap();
    let parent = open_folder(scratch.path()).unwrap();
    assert!(open_folder_in(&parent, "real").is_ok() && open_child(&parent, "real").is_ok());
    for name in ["bent", "pipe", "..", "/proc/self", "absent"] {
        assert!(open_folder_in(&parent, name).is_err() && open_child(&parent, name).is_err(), "{name}");
    }
}
