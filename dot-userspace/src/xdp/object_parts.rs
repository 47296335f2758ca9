//! The parts of the loaded object: its programs as the kernel knows them, and its maps.
//!
//! Before: `kernel` loaded the object. After: each module takes its maps out of it. Never: loads or attaches.

use std::error::Error;

use aya::{Ebpf, maps::Map, programs::ProgramError};

use super::{ProgramReport, XdpError, error::innermost};

/// The kernel's data about a loaded program.
pub(super) fn program_report(object: &Ebpf, name: &str) -> Result<ProgramReport, XdpError> {
    let program = object.program(name).ok_or_else(|| absent(name))?;
    let info = program.info().map_err(|error| refused(name, &error))?;
    Ok(ProgramReport {
        name: name.to_owned(),
        id: info.id(),
        verified_instructions: info.verified_instruction_count().unwrap_or(0),
        translated_octets: info.size_translated().unwrap_or(0),
    })
}

/// Takes a map out of the object.
pub(super) fn take(object: &mut Ebpf, name: &str) -> Result<Map, XdpError> {
    object.take_map(name).ok_or_else(|| absent(name))
}

pub(super) fn absent(name: &str) -> XdpError {
    XdpError::Load { what: name.into(), reason: "it is not in the object; build again".into() }
}

/// The kernel's refusal of a map or a program; the verifier's own words, if it had some.
pub(super) fn refused(what: &str, error: &(dyn Error + 'static)) -> XdpError {
    let words = match error.downcast_ref() {
        Some(ProgramError::LoadError { verifier_log, .. }) => sentence(&verifier_log.to_string()),
        _ => None,
    };
    XdpError::Load { what: what.into(), reason: words.unwrap_or_else(|| innermost(error)) }
}

/// The verifier's last sentence before its figures.
fn sentence(log: &str) -> Option<String> {
    const FIGURES: [&str; 3] = ["verification time", "stack depth", "processed"];
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let words = lines.take_while(|line| !FIGURES.iter().any(|figure| line.starts_with(figure)));
    words.last().map(|words| format!("the verifier says: {words}"))
}

#[cfg(test)]
mod tests {
    use super::sentence;

    /// Goal: a refusal by the verifier is told in its words. Method: the ends of its logs.
    #[test]
    fn the_verifier_has_a_sentence() {
        let log = "Func#8 ('dotd_admits') is safe for any args that match its prototype\n\
            combined stack size of 2 calls is 608. Too large\nverification time 215036 usec\n\
            stack depth 376+0+224\nprocessed 22444 insns (limit 1000000)\n";
        let words = "the verifier says: combined stack size of 2 calls is 608. Too large";
        assert_eq!(sentence(log).as_deref(), Some(words));
        assert_eq!(sentence("").as_deref(), None);
        assert_eq!(sentence("processed 1 insns\n").as_deref(), None);
    }
}
