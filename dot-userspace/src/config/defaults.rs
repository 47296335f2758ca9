//! The default of each key: a value that is safe, and useful at once.
//!
//! Before: a key is absent. After: `config::model` has this value. Never: checks anything.

use std::{path::PathBuf, time::Duration};

use super::{
    Access, Backend, Balance, ClientAddress, ClientSubnet, Denied, Dns, Dnstap, DnstapMessages, Gate,
    LimitMode, Listen, Log, LogFormat, LogLevel, Misuse, MisuseAction, Otlp, Over, Policy, Port53,
    QueriesOver, Sandbox, Server, Session, Steering, SynCookies, SynOver, Tls, TlsVersion, Workers, Xdp,
    XdpLimit, XdpMode, limit,
};

impl Default for Server {
    fn default() -> Self {
        Self {
            workers: Workers::Auto,
            user: String::new(),
            state_dir: PathBuf::from("/var/lib/dotd"),
            run_dir: PathBuf::from("/run/dotd"),
            sandbox: Sandbox::Enforce,
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
            fast_open: false,
            proxy_protocol_from: Vec::new(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            strict: false,
            min_version: TlsVersion::V1_2,
            require_ems: true,
            client_ca: PathBuf::new(),
            ticket_secret: PathBuf::new(),
            ticket_rotation: limit::TICKET_ROTATION.default,
            by_acme: None,
        }
    }
}

impl Default for Access {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            server_names: Vec::new(),
            client_names: Vec::new(),
            denied: Denied::Close,
            listener: Vec::new(),
        }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            handshake_timeout: limit::HANDSHAKE_TIMEOUT.default,
            message_timeout: limit::MESSAGE_TIMEOUT.default,
            write_timeout: limit::WRITE_TIMEOUT.default,
            idle_timeout: limit::IDLE_TIMEOUT.default,
            duration_max: limit::DURATION_MAX.default,
            queries_max: limit::QUERIES_MAX.default,
            in_flight_max: limit::IN_FLIGHT_MAX.default,
            owed_octets_max: limit::OWED_OCTETS_MAX.default,
            owed_octets_per_prefix_max: limit::OWED_OCTETS_PER_PREFIX_MAX.default,
            owed_octets_per_worker_max: limit::OWED_OCTETS_PER_WORKER_MAX.default,
            connections_max: limit::CONNECTIONS_MAX.default,
            connections_per_prefix_max: limit::CONNECTIONS_PER_PREFIX_MAX.default,
            connections_per_listener_max: limit::CONNECTIONS_PER_LISTENER_MAX.default,
            handshakes_per_second: limit::HANDSHAKES_PER_SECOND.default,
            queries_per_second: limit::QUERIES_PER_SECOND.default,
            queries_burst: limit::QUERIES_BURST.default,
            queries_over: QueriesOver::Refuse,
            move_at_upgrade: true,
        }
    }
}

impl Backend {
    /// Two seconds: a stub resolver gives up after about five.
    pub(super) const fn default_timeout() -> Duration {
        limit::BACKEND_TIMEOUT.default
    }

    /// Equal shares.
    pub(super) const fn default_weight() -> u16 {
        limit::BACKEND_WEIGHT.default
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            policy: Policy::LeastOutstanding,
            health_interval: limit::HEALTH_INTERVAL.default,
            hedge_percent: limit::HEDGE_PERCENT.default,
            bootstrap: Vec::new(),
            downgrade_window: limit::DOWNGRADE_WINDOW.default,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            padding: true,
            keepalive: true,
            client_subnet: ClientSubnet::Pass,
            transfers: false,
            notify: false,
            update: false,
            cache_entries: limit::CACHE_ENTRIES.default,
            cache_ttl_min: limit::CACHE_TTL_MIN.default,
            cache_ttl_max: limit::CACHE_TTL_MAX.default,
            cache_negative_ttl_max: limit::CACHE_NEGATIVE_TTL_MAX.default,
            cache_stale: limit::CACHE_STALE.default,
        }
    }
}

impl Default for Misuse {
    fn default() -> Self {
        Self {
            window: limit::MISUSE_WINDOW.default,
            hold: limit::MISUSE_HOLD.default,
            ignore: Vec::new(),
            delayed_per_second: limit::MISUSE_DELAYED_PER_SECOND.default,
            random_names: MisuseAction::Off,
            random_names_min: limit::MISUSE_RANDOM_NAMES_MIN.default,
            random_names_missing_percent: limit::MISUSE_MISSING_PERCENT.default,
            random_names_budget: limit::MISUSE_RANDOM_NAMES_BUDGET.default,
            tunnel: MisuseAction::Off,
            tunnel_name_octets: limit::MISUSE_TUNNEL_NAME_OCTETS.default,
            tunnel_answer_octets: limit::MISUSE_TUNNEL_ANSWER_OCTETS.default,
            failures: MisuseAction::Off,
            failures_min: limit::MISUSE_FAILURES_MIN.default,
            failures_percent: limit::MISUSE_FAILURES_PERCENT.default,
            queries: MisuseAction::Off,
            queries_max: limit::MISUSE_QUERIES_MAX.default,
            answer_octets: MisuseAction::Off,
            answer_octets_max: limit::MISUSE_ANSWER_OCTETS_MAX.default,
        }
    }
}

impl Default for Dnstap {
    fn default() -> Self {
        Self {
            unix: PathBuf::new(),
            tcp: None,
            allow_cleartext: false,
            messages: vec![DnstapMessages::Client, DnstapMessages::Backend],
            sample: limit::DNSTAP_SAMPLE.default,
            client_address: ClientAddress::Full,
            identity: String::new(),
        }
    }
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            allow_cleartext: false,
            clients: Vec::new(),
            sample: limit::OTLP_SAMPLE.default,
            names: false,
            service_name: "dotd".to_owned(),
            traceparent_option: 0,
            exemplars: false,
        }
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
            port_53: Port53::Auto,
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
            prefix_v4: limit::PREFIX_V4.default,
            prefix_v6: limit::PREFIX_V6.default,
            wide_v4: limit::WIDE_V4.default,
            wide_v6: limit::WIDE_V6.default,
            wide_connections_per_second: limit::WIDE_CONNECTIONS_PER_SECOND.default,
            wide_cost_per_second: limit::WIDE_COST_PER_SECOND.default,
            syn_per_second: limit::SYN_PER_SECOND.default,
            syn_burst: limit::SYN_BURST.default,
            syn_over: SynOver::Cookie,
            udp53_per_second: limit::UDP53_PER_SECOND.default,
            udp53_burst: limit::UDP53_BURST.default,
            udp53_over: Over::Truncate,
            handshake_cost_per_second: limit::HANDSHAKE_COST_PER_SECOND.default,
            ban_seconds: limit::BAN_SECONDS.default,
            syn_flood_rate: limit::SYN_FLOOD_RATE.default,
            mode: LimitMode::Enforce,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            client_address: ClientAddress::Prefix,
            connections: false,
        }
    }
}
