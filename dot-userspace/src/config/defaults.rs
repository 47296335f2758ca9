//! What each key is when the file does not say: a value that is safe, and useful at once.
//!
//! Before: a key is absent. After: `config::model` has this value. Never: checks anything.

use std::{path::PathBuf, time::Duration};

use super::{
    Backend, Balance, ClientAddress, Dns, Gate, LimitMode, Listen, Log, LogFormat, LogLevel, Over, Policy,
    Server, Session, Steering, SynCookies, Tls, TlsVersion, Workers, Xdp, XdpLimit, XdpMode,
};

const HOUR: Duration = Duration::from_secs(3600);

impl Default for Server {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
            user: String::new(),
            state_dir: PathBuf::from("/var/lib/dotd"),
            run_dir: PathBuf::from("/run/dotd"),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let any = |host: std::net::IpAddr| std::net::SocketAddr::new(host, 853);
        Self {
            dot: vec![
                any(std::net::Ipv4Addr::UNSPECIFIED.into()),
                any(std::net::Ipv6Addr::UNSPECIFIED.into()),
            ],
            do53: Vec::new(),
            proxy_protocol_from: Vec::new(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            min_version: TlsVersion::V1_2,
            client_ca: PathBuf::new(),
            ticket_secret: PathBuf::new(),
            ticket_rotation: 6 * HOUR,
        }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            message_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            duration_max: HOUR,
            queries_max: 100_000,
            in_flight_max: 256,
            connections_max: 100_000,
            connections_per_prefix_max: 500,
        }
    }
}

impl Backend {
    /// Two seconds: a stub resolver gives up after about five.
    pub(super) const fn default_timeout() -> Duration {
        Duration::from_secs(2)
    }

    /// Equal shares.
    pub(super) const fn default_weight() -> u16 {
        1
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self { policy: Policy::LeastOutstanding, health_interval: Duration::from_secs(1) }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self { padding: true, keepalive: true, cache_entries: 0 }
    }
}

impl Default for Xdp {
    fn default() -> Self {
        Self {
            mode: XdpMode::Auto,
            required: false,
            interfaces: Vec::new(),
            cleartext_853: Gate::Drop,
            tls_53: Gate::Drop,
            udp_853: Gate::Drop,
            allow: Vec::new(),
            deny: Vec::new(),
            steering: Steering::Auto,
            syn_cookies: SynCookies::Off,
            limit: XdpLimit::default(),
        }
    }
}

impl Default for XdpLimit {
    fn default() -> Self {
        Self {
            prefix_v4: 32,
            prefix_v6: 56,
            syn_per_second: 0,
            syn_burst: 100,
            udp53_per_second: 0,
            udp53_burst: 400,
            udp53_over: Over::Truncate,
            handshake_cost_per_second: 0,
            ban_seconds: 0,
            mode: LimitMode::Enforce,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text, client_address: ClientAddress::Prefix }
    }
}
