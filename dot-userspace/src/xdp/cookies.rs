//! SYN cookies from XDP: the config's choice, and whether the kernel makes any.
//!
//! Before: the config. After: the cookie program's constants, and a state with its reason for `xdp show`.
//! Holds: the rate, and the reason why the program, or the proxy, does not run; the state is a pure function of that, the sysctl
//! and the ways in. Never: makes a cookie, or changes a sysctl.

use std::{borrow::Cow, fs};

use dot_common::{rate::Rate, syn_proxy::Secret};

use super::{Paths, object::OBJECT, proxy::Proxy};
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

    /// The kernel refused the proxy: XDP makes the cookies, as on a kernel that cannot have the proxy.
    pub(super) fn proxy_refused(&mut self, why: String) {
        self.proxy = Some(Err(why));
    }

    /// The state, with a reason if it is not the expected one, or a condition. `paths`: the ways in, where they are known.
    pub(super) fn state(&self, paths: Option<Paths>) -> (String, Option<String>) {
        let proxy = self.proxy.as_ref().map(|proxy| proxy.as_ref().map(|_| ()).map_err(String::as_str));
        let sysctl = sysctl();
        let known = Known {
            wanted: self.wanted,
            proxy,
            refusal: self.refusal.as_deref(),
            sysctl: sysctl.as_deref(),
            paths,
        };
        let (state, reasons) = known.state();
        (state.into(), (!reasons.is_empty()).then(|| reasons.join("; ")))
    }
}

/// What decides which cookies clients see.
#[derive(Clone, Copy)]
struct Known<'a> {
    wanted: SynCookies,
    proxy: Option<Result<(), &'a str>>,
    refusal: Option<&'a str>,
    sysctl: Option<&'a str>,
    paths: Option<Paths>,
}

impl Known<'_> {
    /// The state, and its reasons and conditions.
    fn state(self) -> (&'static str, Vec<String>) {
        let Self { wanted, proxy, refusal, sysctl, paths } = self;
        if wanted == SynCookies::Off {
            return ("off", Vec::new());
        }
        if sysctl == Some("0") {
            return ("off", vec![NOT_MADE.into()]);
        }
        if proxy == Some(Ok(())) {
            return ("proxy", Vec::new());
        }
        let made = match sysctl {
            Some("2") => None,
            _ => Some("while a listener's queue is full".to_owned()),
        };
        let mut reasons: Vec<String> =
            proxy.and_then(Result::err).map(|why| format!("by XDP: {why}")).into_iter().collect();
        let nowhere = match (refusal, paths) {
            (Some(why), _) => Some(why.to_owned()),
            (None, Some(Paths { xdp: 0, tc: 1.., .. })) => Some(NOT_AT_TC.into()),
            _ => None,
        };
        if let Some(why) = nowhere {
            let by_stack = made.unwrap_or_else(|| "for every SYN".into());
            reasons.extend([why, format!("the network stack makes its own {by_stack}")]);
            return ("off", reasons);
        }
        reasons.extend(made);
        if let Some(Paths { tc: at_tc @ 1.., .. }) = paths {
            reasons.push(format!("none on the {at_tc} judged at tc ingress"));
        }
        (if wanted == SynCookies::Always { "always" } else { "auto" }, reasons)
    }
}

/// The reason why XDP makes none where no interface has XDP.
const NOT_AT_TC: &str =
    "every interface is judged at tc ingress, where XDP makes no cookies (\"proxy\" does)";

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
impl Cookies {
    /// Takes this proxy for the one that was found.
    pub(super) fn put_proxy(&mut self, proxy: Proxy) {
        self.proxy = Some(Ok(proxy));
    }
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
        assert_eq!(cookies(SynCookies::Off).state(None), ("off".into(), None));
        assert!(!cookies(SynCookies::Always).rate().is_limit());
        let rate = cookies(SynCookies::Auto).rate();
        assert_eq!((rate.period_ns, rate.tolerance_ns), (1_000_000, 99_000_000));
        let mut refused = cookies(SynCookies::Always);
        refused.refused("no such helper".into());
        let (state, why) = refused.state(None);
        assert!(state == "off" && why.is_some_and(|why| why.starts_with("no such helper")));
    }

    /// Goal: on a kernel without the proxy's function XDP makes the cookies, and the report says why; with it XDP makes none.
    /// Method: both answers of the search.
    #[test]
    fn an_older_kernel_has_cookies_of_xdp() {
        let config = Xdp { syn_cookies: SynCookies::Proxy, ..Xdp::default() };
        let cookies = |proxy| Cookies { proxy: Some(proxy), ..Cookies::of(&config) };
        let older = cookies(Err("no function".to_owned()));
        assert!(older.are_wanted() && !older.is_proxy());
        let (state, why) = older.state(None);
        assert!(state == "auto" && why.is_some_and(|why| why.starts_with("by XDP: no function")));
        if let Ok(proxy) = Proxy::find() {
            let newer = cookies(Ok(proxy));
            assert!(newer.is_proxy() && !newer.are_wanted());
            assert_eq!(newer.rate(), older.rate());
        }
    }

    /// Goal: a proxy that the kernel refuses leaves XDP's cookies, with the reason, as a kernel without its function does.
    /// Method: the decision before and after the refusal.
    #[test]
    fn a_refused_proxy_leaves_xdps_cookies() {
        let config = Xdp { syn_cookies: SynCookies::Proxy, ..Xdp::default() };
        let proxy = Some(Ok(Proxy { number: 1, secret: [1, 2] }));
        let mut cookies = Cookies { proxy, ..Cookies::of(&config) };
        assert!(cookies.is_proxy() && !cookies.are_wanted());
        cookies.proxy_refused("the verifier says no".into());
        assert!(!cookies.is_proxy() && cookies.are_wanted() && cookies.rate().is_limit());
        let (state, why) = cookies.state(None);
        assert!(state == "auto" && why.is_some_and(|why| why.contains("the verifier says no")));
    }

    /// Goal: the state says which cookies clients see. Method: a table of choices, ways in and values of the sysctl.
    ///
    #[test]
    fn the_state_is_what_clients_see() {
        let paths = |xdp, tc| Some(Paths { xdp, tc, not_covered: 0 });
        let full = "while a listener's queue is full";
        let stack = |when| format!("{NOT_AT_TC}; the network stack makes its own {when}");
        let table = [
            (SynCookies::Off, None, "0", paths(0, 1), "off", String::new()),
            (SynCookies::Auto, None, "1", None, "auto", full.into()),
            (SynCookies::Auto, None, "1", paths(1, 0), "auto", full.into()),
            (SynCookies::Auto, None, "1", paths(0, 2), "off", stack(full)),
            (SynCookies::Always, None, "2", paths(0, 2), "off", stack("for every SYN")),
            (SynCookies::Always, None, "2", paths(1, 0), "always", String::new()),
            (
                SynCookies::Always,
                None,
                "2",
                paths(1, 2),
                "always",
                "none on the 2 judged at tc ingress".into(),
            ),
            (SynCookies::Auto, None, "0", paths(0, 2), "off", NOT_MADE.into()),
            (SynCookies::Proxy, Some(Ok(())), "1", paths(0, 2), "proxy", String::new()),
            (SynCookies::Proxy, Some(Ok(())), "0", paths(0, 2), "off", NOT_MADE.into()),
            (
                SynCookies::Proxy,
                Some(Err("old")),
                "1",
                paths(0, 1),
                "off",
                format!("by XDP: old; {}", stack(full)),
            ),
        ];
        for (wanted, proxy, sysctl, paths, state, why) in table {
            let known = Known { wanted, proxy, refusal: None, sysctl: Some(sysctl), paths };
            let (found, reasons) = known.state();
            assert_eq!(
                (found, reasons.join("; ")),
                (state, why),
                "{wanted:?}, {proxy:?}, {sysctl}, {paths:?}"
            );
        }
    }
}
