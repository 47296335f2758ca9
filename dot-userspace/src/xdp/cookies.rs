//! SYN cookies from XDP: the config's choice, and whether the kernel makes any.
//!
//! Before: the config. After: the cookie program's constants, and a state with its reason for `xdp show`.
//! Holds: the rate, and the reason why the program does not run. Never: makes a cookie, or changes a sysctl.

use std::{borrow::Cow, fs};

use dot_common::{rate::Rate, syn_proxy::Secret};

use super::{object::OBJECT, proxy::Proxy};
use crate::config::{SynCookies, Xdp};

/// Applies to the network namespace of the reader: 0 never, 1 when a listener's queue is full, 2 always (ip-sysctl).
const SYSCTL: &str = "/proc/sys/net/ipv4/tcp_syncookies";

/// The burst is a tenth of a second: the clock that XDP reads moves in steps of up to 10 ms.
const BURSTS_PER_SECOND: u32 = 10;

/// The config's choice and the outcome.
#[derive(Clone, Debug)]
pub(super) struct Cookies {
    wanted: SynCookies,
    rate: Rate,
    refusal: Option<String>,
    /// The proxy, or why there is none; only if the config wants it.
    proxy: Option<Result<Proxy, String>>,
}

impl Cookies {
    /// The state that the config asks for.
    pub(super) fn of(config: &Xdp) -> Self {
        let per_second = config.limit.syn_flood_rate;
        let rate = match config.syn_cookies {
            SynCookies::Auto | SynCookies::Proxy => {
                Rate::new(per_second, per_second.div_ceil(BURSTS_PER_SECOND))
            }
            SynCookies::Always | SynCookies::Off => Rate::default(),
        };
        let proxy = (config.syn_cookies == SynCookies::Proxy).then(Proxy::find);
        Self { wanted: config.syn_cookies, rate, refusal: None, proxy }
    }

    /// Whether the XDP program is wanted: also where the proxy is not to be had.
    pub(super) fn are_wanted(&self) -> bool {
        self.wanted != SynCookies::Off && !self.is_proxy()
    }

    /// Whether the program at tc ingress is wanted in its place, and to be had.
    pub(super) fn is_proxy(&self) -> bool {
        matches!(self.proxy, Some(Ok(_)))
    }

    /// The object to load. One without the function's number is whole but for the proxy.
    pub(super) fn object(&mut self) -> Cow<'static, [u8]> {
        let Some(Ok(proxy)) = self.proxy else { return Cow::Borrowed(OBJECT) };
        match proxy.put_into(OBJECT) {
            Ok(object) => Cow::Owned(object),
            Err(why) => {
                self.proxy = Some(Err(why));
                Cow::Borrowed(OBJECT)
            }
        }
    }

    /// The proxy's secret.
    pub(super) fn secret(&self) -> Secret {
        self.proxy
            .as_ref()
            .and_then(|proxy| proxy.as_ref().ok())
            .map(|proxy| proxy.secret)
            .unwrap_or_default()
    }

    /// The rate of all SYNs above which the kernel is asked for cookies; without a rate it is always asked.
    pub(super) fn rate(&self) -> Rate {
        self.rate
    }

    /// The program was refused.
    pub(super) fn refused(&mut self, why: String) {
        self.refusal = Some(why);
    }

    /// The state, with a reason if it is not the expected one.
    pub(super) fn state(&self) -> (String, Option<String>) {
        let state = match (self.wanted, &self.refusal) {
            (SynCookies::Off, _) => return ("off".into(), None),
            (_, Some(refusal)) => return ("off".into(), Some(refusal.clone())),
            (SynCookies::Proxy, None) if self.is_proxy() => "proxy",
            (SynCookies::Auto | SynCookies::Proxy, None) => "auto",
            (SynCookies::Always, None) => "always",
        };
        if let Some(Err(why)) = &self.proxy {
            return (state.into(), Some(format!("by XDP: {why}")));
        }
        match sysctl().as_deref() {
            Some("0") => ("off".into(), Some(NOT_MADE.into())),
            Some("2") => (state.into(), None),
            Some(_) if self.is_proxy() => (state.into(), None),
            _ => (state.into(), Some("while a listener's queue is full".into())),
        }
    }
}

/// The reason why the kernel makes none.
pub(super) const NOT_MADE: &str = "net.ipv4.tcp_syncookies is 0: set it to 1";

/// Whether the kernel makes cookies at all. If the setting cannot be read, the answer is no.
pub(super) fn are_made() -> bool {
    sysctl().is_some_and(|value| value != "0")
}

/// The value of the sysctl.
fn sysctl() -> Option<String> {
    fs::read_to_string(SYSCTL).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::XdpLimit;

    /// Goal: `always` asks for every SYN, `auto` above its rate; `off` needs no reason.
    #[test]
    fn rates_follow_the_config() {
        let limit = XdpLimit { syn_flood_rate: 1000, ..XdpLimit::default() };
        let cookies = |syn_cookies| Cookies::of(&Xdp { syn_cookies, limit: limit.clone(), ..Xdp::default() });
        assert!(!cookies(SynCookies::Off).are_wanted() && cookies(SynCookies::Auto).are_wanted());
        assert_eq!(cookies(SynCookies::Off).state(), ("off".into(), None));
        assert!(!cookies(SynCookies::Always).rate().is_limit());
        let rate = cookies(SynCookies::Auto).rate();
        assert_eq!((rate.period_ns, rate.tolerance_ns), (1_000_000, 99_000_000));
        let mut refused = cookies(SynCookies::Always);
        refused.refused("no such helper".into());
        assert_eq!(refused.state(), ("off".into(), Some("no such helper".into())));
    }

    /// Goal: on a kernel without the proxy's function XDP makes the cookies, and the report says why; with it XDP makes none.
    /// Method: both answers of the search.
    #[test]
    fn an_older_kernel_has_cookies_of_xdp() {
        let config = Xdp { syn_cookies: SynCookies::Proxy, ..Xdp::default() };
        let cookies = |proxy| Cookies { proxy: Some(proxy), ..Cookies::of(&config) };
        let older = cookies(Err("no function".to_owned()));
        assert!(older.are_wanted() && !older.is_proxy());
        assert_eq!(older.state(), ("auto".into(), Some("by XDP: no function".into())));
        if let Ok(proxy) = Proxy::find() {
            let newer = cookies(Ok(proxy));
            assert!(newer.is_proxy() && !newer.are_wanted());
            assert_eq!(newer.rate(), older.rate());
        }
    }
}
