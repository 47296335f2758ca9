//! Tests of the copy of a transferred zone: it follows its zone, and a transfer is bounded.

use super::*;
use crate::dns::wire_name;

const BOUNDS: Bounds = Bounds { octets: 10_000, records: 100, difference_octets: 2000 };

fn soa(serial: u32) -> ZoneRecord {
    let numbers = [serial, 1, 2, 3, 4].iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
    record("rpz.test", 6, [&[0, 0][..], &numbers].concat())
}

fn record(owner: &str, rtype: u16, rdata: Vec<u8>) -> ZoneRecord {
    ZoneRecord { owner: wire_name(owner).unwrap(), rtype, class: 1, ttl: 60, rdata }
}

fn address(owner: &str, last: u8) -> ZoneRecord {
    record(&format!("{owner}.rpz.test"), 1, vec![192, 0, 2, last])
}

type Step = (Part, ZoneRecord);

/// The effect of a transfer on the copy in `folder`.
fn transfer(folder: &Path, has: Option<u32>, steps: &[Step]) -> Result<Option<bool>, Unfit> {
    let mut arriving = Arriving::begin(&copy_of(folder, "rpz.test"), has, BOUNDS)?;
    for (part, record) in steps {
        arriving.take(*part, record)?;
    }
    let Some((draft, is_by_differences)) = arriving.finish()? else { return Ok(None) };
    draft.keep()?;
    Ok(Some(is_by_differences))
}

fn lines(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(copy_of(folder, "RPZ.test.")).unwrap();
    let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with(';')).map(str::to_owned).collect();
    assert!(lines[0].contains(" SOA "), "{lines:?}");
    lines.sort();
    lines
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn is_about_differences(outcome: Result<Option<bool>, Unfit>) -> bool {
    matches!(outcome, Err(Unfit::Differences(_)))
}

/// Goal: a whole zone becomes the copy, and differences in two steps change it as if they came one after the other,
/// also if a record is deleted, added and deleted again; differences that do not fit leave the copy unchanged, and no
/// other file. Covers: C-562, A-561
#[test]
fn a_copy_follows_its_zone() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let whole = [
        (Part::First, soa(1)),
        (Part::Zone, address("a", 1)),
        (Part::Zone, address("b", 2)),
        (Part::End, soa(1)),
    ];
    assert_eq!(transfer(folder, None, &whole).unwrap(), Some(false));
    let first = lines(folder);
    assert_eq!(first.len(), 3, "{first:?}");
    let steps = [
        (Part::First, soa(3)),
        (Part::Border, soa(1)),
        (Part::Deleted, address("a", 1)),
        (Part::Border, soa(2)),
        (Part::Added, address("c", 3)),
        (Part::Added, address("d", 4)),
        (Part::Border, soa(2)),
        (Part::Deleted, address("c", 3)),
        (Part::Border, soa(3)),
        (Part::Added, address("a", 1)),
        (Part::Border, soa(3)),
    ];
    assert!(is_about_differences(transfer(folder, Some(9), &steps)), "from another version");
    let end = || (Part::Border, soa(3));
    let unknown = [steps[0].clone(), steps[1].clone(), (Part::Deleted, address("x", 9)), end(), end()];
    assert!(is_about_differences(transfer(folder, Some(1), &unknown)), "a record that is not there");
    let cut = &whole[..whole.len() - 1];
    assert!(
        matches!(transfer(folder, None, cut), Err(Unfit::Zone(why)) if why.contains("before its last record"))
    );
    for end in 2..steps.len() {
        assert!(is_about_differences(transfer(folder, Some(1), &steps[..end])), "cut off at {end}");
    }
    let mut skipping = steps.clone();
    skipping[6] = (Part::Border, soa(1));
    assert!(is_about_differences(transfer(folder, Some(1), &skipping)), "a step from another version");
    assert_eq!(lines(folder), first);
    assert_eq!(transfer(folder, Some(1), &steps).unwrap(), Some(true));
    let soa_line = lines(folder).into_iter().find(|line| line.contains(" SOA ")).unwrap();
    assert!(soa_line.ends_with(" 3 1 2 3 4"), "{soa_line}");
    let owners: Vec<_> =
        lines(folder).iter().map(|line| line.split('.').next().unwrap().to_owned()).collect();
    assert_eq!(owners, ["a", "b", "d", "rpz"]);
    assert_eq!(transfer(folder, Some(3), &[(Part::First, soa(3))]).unwrap(), None);
    assert_eq!(names(folder), ["policy-rpz.test.zone"]);
}

/// Goal: a zone with more records or octets than permitted, and differences that need more memory, are not used; a
/// draft that remained from a process is removed at the next start, and no other file is.
#[test]
fn a_transfer_is_bounded() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let many = (0..101).map(|number| (Part::Zone, address(&format!("n{number}"), 1)));
    let many: Vec<_> = std::iter::once((Part::First, soa(1))).chain(many).collect();
    assert!(matches!(transfer(folder, None, &many), Err(Unfit::Zone(why)) if why.contains("100 records")));
    let long = [(Part::First, soa(1)), (Part::Zone, record("rpz.test", 16, vec![0; 9000]))];
    assert!(matches!(transfer(folder, None, &long), Err(Unfit::Zone(why)) if why.contains("10000 octets")));
    let steps = (0..20).map(|number| (Part::Added, address(&format!("n{number}"), 1)));
    let steps: Vec<_> = [(Part::First, soa(2)), (Part::Border, soa(1))].into_iter().chain(steps).collect();
    assert!(is_about_differences(transfer(folder, Some(1), &steps)));
    let empty_steps =
        (1..20).flat_map(|serial| [serial, serial + 1]).map(|serial| (Part::Border, soa(serial)));
    let empty_steps: Vec<_> = std::iter::once((Part::First, soa(99))).chain(empty_steps).collect();
    assert!(
        matches!(transfer(folder, Some(1), &empty_steps), Err(Unfit::Differences(why)) if why.contains("2000 octets"))
    );
    let other_class = ZoneRecord { class: 3, ..address("a", 1) };
    assert!(transfer(folder, None, &[(Part::First, soa(1)), (Part::Zone, other_class)]).is_err());
    assert_eq!(names(folder), Vec::<String>::new());
    for name in ["policy-rpz.test.zone", "policy-rpz.test.zone.77", "policy-x.zone.y", "other.zone.77"] {
        fs::write(folder.join(name), "").unwrap();
    }
    remove_drafts(folder);
    let mut left = names(folder);
    left.sort();
    assert_eq!(left, ["other.zone.77", "policy-rpz.test.zone", "policy-x.zone.y"]);
}
