//! Every committed seed through its target: a fault that an engine once found is found again, without an engine.

use std::{fs, path::Path};

use dot_fuzz::TARGETS;

/// Goal: no seed makes an assertion fail, every target has seeds, and every folder of seeds has a target. Method: runs
/// each file of `fuzz/seeds/<target>`.
#[test]
fn every_seed_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for target in TARGETS {
        let seeds =
            fs::read_dir(folder.join(target.name)).unwrap_or_else(|error| panic!("{}: {error}", target.name));
        let mut count = 0;
        for seed in seeds {
            let path = seed.expect("our own folder").path();
            eprintln!("{}", path.display());
            (target.run)(&fs::read(&path).expect("a file"));
            count += 1;
        }
        assert!(count > 0, "{} has no seed", target.name);
    }
    let folders = fs::read_dir(&folder).expect("our own folder").count();
    assert_eq!(folders, TARGETS.len(), "a folder of seeds without a target");
}
