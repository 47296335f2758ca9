//! The verdict on a packet, an action and its reason, under the names that counters, metrics and people use.
//!
//! Before: [`crate::judge`] decided. After: [`crate::counters`] turns a verdict into a counter.
//! Holds: every reason with its name; a name here is a label in `/metrics`, and does not change.
//! Never: decides.

use crate::packet::Malformed;

/// An action on a packet, and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The action.
    pub action: Action,
    /// The reason.
    pub reason: Reason,
}

/// An action on a packet.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It passes on to the stack.
    Pass = 0,
    /// It ends here (or its connection does).
    Drop = 1,
    /// It passes, and would not if its gate or limit were enforced.
    WouldDrop = 2,
    /// It is rewritten into its own answer and sent back.
    Answer = 3,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Drop, Self::WouldDrop, Self::Answer];

    /// Its name in snapshots and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::WouldDrop => "would_drop",
            Self::Answer => "answer",
        }
    }
}

/// Names one reason per line: variant, name, and the actions it can come with.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $actions:expr;)*) => {
        /// Why a packet passes or does not.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $variant),* }

        impl Reason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in snapshots and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name),* } }

            /// The actions it can come with.
            #[must_use]
            pub const fn actions(self) -> &'static [Action] { match self { $(Self::$variant => $actions),* } }
        }
    };
}

const PASSES: &[Action] = &[Action::Pass];
const DROPS: &[Action] = &[Action::Drop];
const GATED: &[Action] = &[Action::Drop, Action::WouldDrop];
const LIMITED: &[Action] = GATED;
const ANSWERED: &[Action] = &[Action::Drop, Action::WouldDrop, Action::Answer];

reasons! {
    /// A connection begins, without octets.
    Syn = "syn", PASSES;
    /// A segment without octets for a stream: ACK, FIN, RST.
    Control = "control", PASSES;
    /// The first octets of a stream, which fit a TLS ClientHello.
    ClientHello = "client_hello", PASSES;
    /// Octets of a stream beyond the opening that a gate looks at.
    Stream = "stream", PASSES;
    /// Octets of a connection whose SYN-ACK was not seen, because the connection is older than the program.
    UnknownFlow = "unknown_flow", PASSES;
    /// First octets of a connection that is too old for them to be judged.
    FlowExpired = "flow_expired", PASSES;
    /// Octets on a port whose gate is off.
    Ungated = "ungated", PASSES;
    /// A datagram to the cleartext port.
    Do53Datagram = "do53_datagram", PASSES;
    /// First octets of a stream to the cleartext port, not TLS.
    Do53Stream = "do53_stream", PASSES;
    /// First octets on a DNS-over-TLS port that are not TLS.
    CleartextOnDot = "cleartext_on_dot", GATED;
    /// A TLS ClientHello on the cleartext port.
    TlsOnDo53 = "tls_on_do53", GATED;
    /// A datagram to a DNS-over-TLS port.
    UdpOnDot = "udp_on_dot", GATED;
    /// A packet that a limit would have counted, from a client on the allow list.
    Allowed = "allowed", PASSES;
    /// A packet that a limit would have counted, from this machine itself.
    Own = "own", PASSES;
    /// A SYN to a DNS-over-TLS port, above the rate of a client whose completed handshakes are within it: the SYNs may
    /// be forged.
    Proven = "proven", PASSES;
    /// A SYN to a DNS-over-TLS port, above the rate of a client of which nothing is known: the SYNs may be forged. The
    /// stack, or XDP, answers with a cookie once queues are full.
    Unproven = "unproven", PASSES;
    /// A SYN to a DNS-over-TLS port, above its client's rate.
    DotSynRate = "dot_syn_rate", LIMITED;
    /// A SYN to the cleartext port, above its client's rate.
    Do53SynRate = "do53_syn_rate", LIMITED;
    /// A query by UDP to the cleartext port, above its client's rate.
    Do53QueryRate = "do53_query_rate", ANSWERED;
    /// A SYN to a DNS-over-TLS port whose client has spent its handshake budget.
    HandshakeCost = "cost", LIMITED;
    /// A SYN to a DNS-over-TLS port, from a wider prefix that has spent its budget of connections or handshakes, and from a
    /// host that has completed no handshake lately; from any host once the prefix has spent a multiple of it.
    WideCost = "wide_cost", LIMITED;
    /// A SYN that was answered with a cookie from the kernel, or dropped because it could not be rewritten.
    SynCookie = "syn_cookie", &[Action::Answer, Action::Drop];
    /// A SYN to a DNS-over-TLS port, while no worker takes connections.
    Pressure = "pressure", LIMITED;
    /// Its client is banned for a while.
    Banned = "banned", LIMITED;
    /// Its client is on the deny list.
    Denied = "denied", DROPS;
    /// The first fragment of a TCP segment.
    TcpFragment = "tcp_fragment", DROPS;
    /// [`Malformed::IpLength`].
    IpLength = "malformed_ip_length", DROPS;
    /// [`Malformed::TcpTruncated`].
    TcpTruncated = "malformed_tcp_truncated", DROPS;
    /// [`Malformed::TcpDataOffset`].
    TcpDataOffset = "malformed_tcp_data_offset", DROPS;
    /// [`Malformed::UdpLength`].
    UdpLength = "malformed_udp_length", DROPS;
    /// [`Malformed::ChainTooLong`].
    ChainTooLong = "ipv6_chain_too_long", DROPS;
    /// [`Malformed::ChainCut`].
    ChainCut = "ipv6_chain_cut", DROPS;
    /// [`Malformed::TooManyTags`].
    TooManyTags = "too_many_vlan_tags", DROPS;
    /// A SYN to a DNS-over-TLS port, while that service is switched off.
    DotOff = "dot_off", DROPS;
}

impl Verdict {
    /// The verdict that a packet passes for this reason.
    #[must_use]
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self { action: Action::Pass, reason }
    }

    /// The verdict that a packet is dropped for this reason.
    #[must_use]
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self { action: Action::Drop, reason }
    }

    /// The verdict with these numbers in an event of the kernel half, unless a number is unknown.
    #[must_use]
    pub fn numbered(reason: u32, action: u32) -> Option<Self> {
        let reason = Reason::ALL.iter().find(|known| **known as u32 == reason)?;
        let action = Action::ALL.iter().find(|known| **known as u32 == action)?;
        Some(Self { action: *action, reason: *reason })
    }
}

impl From<Malformed> for Verdict {
    #[inline(always)]
    fn from(malformed: Malformed) -> Self {
        Self::drop(match malformed {
            Malformed::IpLength => Reason::IpLength,
            Malformed::TcpTruncated => Reason::TcpTruncated,
            Malformed::TcpDataOffset => Reason::TcpDataOffset,
            Malformed::UdpLength => Reason::UdpLength,
            Malformed::ChainTooLong => Reason::ChainTooLong,
            Malformed::ChainCut => Reason::ChainCut,
            Malformed::TooManyTags => Reason::TooManyTags,
        })
    }
}
