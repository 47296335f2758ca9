//! The SYN proxy at tc ingress: whether this kernel can have it, and the object with the number of the kernel's function.
//!
//! Before: the config wants it. After: the object calls `bpf_sk_assign_tcp_reqsk` by the number that this kernel gave it.
//! Holds: the search for the mark in the object, in whose place the number is written. Never: loads or attaches; guesses a
//! number.
//!
//! aya 0.14 resolves no functions of the kernel. Such a call is an instruction whose source register is 2 and whose operand is the
//! function's number in the kernel's types (linux/bpf.h, BPF_PSEUDO_KFUNC_CALL).

use std::{
    fs::File,
    io::{self, Read as _},
};

use aya::Btf;
use aya_obj::btf::BtfKind;
use dot_common::{maps::PROXY_MARK, syn_proxy::Secret};

use super::object::OBJECT;

const FUNCTION: &str = "bpf_sk_assign_tcp_reqsk";

/// The proxy, before its object is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proxy {
    /// The function's number in the kernel's types.
    pub(super) number: u32,
    pub(super) secret: Secret,
}

impl Proxy {
    /// Finds the function.
    ///
    /// # Errors
    /// The reason why this kernel cannot have the proxy.
    pub(super) fn find() -> Result<Self, String> {
        let types = Btf::from_sys_fs().map_err(|error| format!("/sys/kernel/btf/vmlinux: {error}"))?;
        let number = types
            .id_by_type_name_kind(FUNCTION, BtfKind::Func)
            .map_err(|_| format!("this kernel has no {FUNCTION} (Linux 6.9 has it)"))?;
        let secret = secret().map_err(|error| format!("/dev/urandom: {error}"))?;
        Ok(Self { number, secret })
    }

    /// A copy of the object that calls the function.
    ///
    /// # Errors
    /// The mark is not in the object exactly once.
    pub(super) fn put_into(self, object: &[u8]) -> Result<Vec<u8>, String> {
        let mark = PROXY_MARK.to_le_bytes();
        let mut places = object.windows(mark.len()).enumerate().filter(|(_, octets)| *octets == mark);
        let (Some((place, _)), None) = (places.next(), places.next()) else {
            return Err("the object does not call the function at one place".into());
        };
        let mut object = object.to_vec();
        if let Some(operand) = object.get_mut(place + 4..place + 8) {
            operand.copy_from_slice(&self.number.to_le_bytes());
        }
        Ok(object)
    }
}

fn secret() -> io::Result<Secret> {
    let mut octets = [[0; 8]; 2];
    let mut file = File::open("/dev/urandom")?;
    octets.iter_mut().try_for_each(|word| file.read_exact(word))?;
    Ok(octets.map(u64::from_ne_bytes))
}

/// A copy of the object whose SYN proxy calls this kernel's function.
///
/// # Errors
/// The reason why this kernel cannot have the proxy.
pub fn with_proxy() -> Result<Vec<u8>, String> {
    Proxy::find()?.put_into(OBJECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the number stands in the call, and nothing else changes. Method: the compiled object, and others without the mark or
    /// with two.
    #[test]
    fn the_call_gets_its_number() {
        let proxy = Proxy { number: 0x0102_0304, secret: [1, 2] };
        let patched = proxy.put_into(OBJECT).expect("one mark");
        let call = [0x85, 0x20, 0, 0, 4, 3, 2, 1];
        assert_eq!(patched.windows(8).filter(|octets| *octets == call).count(), 1);
        assert_eq!(patched.iter().zip(OBJECT).filter(|(new, old)| new != old).count(), 4);
        assert!(proxy.put_into(&patched).is_err(), "no mark");
        assert!(proxy.put_into(&[OBJECT, OBJECT].concat()).is_err(), "two");
    }
}
