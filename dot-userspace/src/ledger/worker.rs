//! The counters of the workers by name: what each counts, and what snapshots and metrics call it.
//!
//! Before: a module of a worker decides something. After: `ledger::line` counts it, `ledger::snapshot` adds the workers up.
//! Holds: names and help texts. Never: holds a count.

/// Names one counter per line: variant, metric family, label value, and the labels of its series if it has others. The
/// comment above it is its help in `/metrics`.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $family:literal, $label:literal $(, $name:ident = $value:literal)*;)*) => {
        /// The counters of a worker. `family()` and `label()` are its names in snapshots and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum Counter { $($(#[doc = $doc])+ $variant),* }

        impl Counter {
            /// Every counter, in order.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant),*];

            /// The group, a JSON object in snapshots and a metric family in `/metrics`.
            #[must_use]
            pub const fn family(self) -> &'static str { match self { $(Counter::$variant => $family),* } }

            /// The name inside the group.
            #[must_use]
            pub const fn label(self) -> &'static str { match self { $(Counter::$variant => $label),* } }

            /// The labels of its series in `/metrics`; empty: the name is label enough.
            #[must_use]
            pub const fn labels(self) -> &'static [(&'static str, &'static str)] {
                match self { $(Counter::$variant => &[$((stringify!($name), $value)),*]),* }
            }

            /// What it counts, for people, without a full stop.
            #[must_use]
            pub fn help(self) -> &'static str {
                match self { $(Counter::$variant => concat!($($doc),+)),* }.trim().trim_end_matches('.')
            }
        }
    };
}

counters! {
    /// TCP connections accepted.
    Accepted = "connections", "accepted";
    /// Connections refused at accept: over `connections_max`.
    RefusedTotal = "connections", "refused_total_cap", end = "refused_total_cap";
    /// Connections refused at accept: over `connections_per_prefix_max`.
    RefusedPrefix = "connections", "refused_prefix_cap", end = "refused_prefix_cap";
    /// Connections refused at accept: over `connections_per_listener_max`.
    RefusedListener = "connections", "refused_listener_cap", end = "refused_listener_cap";
    /// Connections refused at accept: over `handshakes_per_second`.
    RefusedRate = "connections", "refused_handshake_rate", end = "refused_handshake_rate";
    /// Connections closed at accept: their client may not ask.
    RefusedAccess = "connections", "refused_access", end = "refused_access";
    /// Sessions that this engine took over from the previous one at an upgrade.
    Adopted = "connections", "adopted";
    /// Connections closed at accept: DNS over TLS is switched off.
    RefusedOff = "connections", "switched_off", end = "switched_off";
    /// `accept` failed for lack of a file descriptor or memory.
    AcceptFailed = "connections", "accept_failed";
    /// Connections open now: a gauge.
    Open = "connections_open", "open";
    /// Full handshakes done, TLS 1.3.
    HandshakeFull13 = "handshakes", "full_tls13", kind = "full", version = "1.3", result = "ok";
    /// Resumed handshakes done, TLS 1.3.
    HandshakeResumed13 = "handshakes", "resumed_tls13", kind = "resumed", version = "1.3", result = "ok";
    /// Full handshakes done, TLS 1.2.
    HandshakeFull12 = "handshakes", "full_tls12", kind = "full", version = "1.2", result = "ok";
    /// Resumed handshakes done, TLS 1.2.
    HandshakeResumed12 = "handshakes", "resumed_tls12", kind = "resumed", version = "1.2", result = "ok";
    /// The handshake was not done within its deadline.
    HandshakeTimeout = "handshakes", "failed_timeout", kind = "none", version = "none", result = "timeout";
    /// The client left before its handshake was done.
    HandshakeClosed = "handshakes", "failed_closed", kind = "none", version = "none", result = "closed";
    /// First octets that are not TLS: cleartext DNS, HTTP, garbage.
    HandshakeNotTls = "handshakes", "failed_not_tls", kind = "none", version = "none", result = "not_tls";
    /// No version in common.
    HandshakeVersion = "handshakes", "failed_version", kind = "none", version = "none", result = "version";
    /// No cipher suite, group or signature scheme in common.
    HandshakeNoCommon = "handshakes", "failed_no_common_parameters", kind = "none", version = "none", result = "no_common_parameters";
    /// ALPN offered without `dot`.
    HandshakeAlpn = "handshakes", "failed_alpn", kind = "none", version = "none", result = "alpn";
    /// Mutual TLS: no certificate, or none from `tls.client_ca`.
    HandshakeClientCertificate = "handshakes", "failed_client_certificate", kind = "none", version = "none", result = "client_certificate";
    /// A server name that is not a host name, such as `*.example`.
    HandshakeServerName = "handshakes", "failed_server_name", kind = "none", version = "none", result = "server_name";
    /// A load balancer's PROXY header is invalid or missing.
    HandshakeProxyHeader = "handshakes", "failed_proxy_header", kind = "none", version = "none", result = "proxy_header";
    /// The client sent a fatal alert.
    HandshakeAlert = "handshakes", "failed_client_alert", kind = "none", version = "none", result = "client_alert";
    /// Anything else that TLS refused.
    HandshakeOther = "handshakes", "failed_other", kind = "none", version = "none", result = "other";
    /// dotd panicked before the session began.
    HandshakePanic = "handshakes", "failed_panic", kind = "none", version = "none", result = "panic";
    /// TLS records that sessions read, TLS 1.3.
    RecordsRead13 = "tls_records", "read_tls13", version = "1.3";
    /// TLS records that sessions read, TLS 1.2.
    RecordsRead12 = "tls_records", "read_tls12", version = "1.2";
    /// Idle sessions that freed the memory of their keys, which their next message makes again.
    Rested = "sessions", "rested";
    /// Sessions ended by the client: close_notify or FIN.
    EndClient = "session_ends", "client";
    /// Reset or another transport error.
    EndTransport = "session_ends", "transport";
    /// No whole message within `idle_timeout`.
    EndIdle = "session_ends", "idle";
    /// A message not whole within `message_timeout`.
    EndMessageTimeout = "session_ends", "message_timeout";
    /// `duration_max` reached.
    EndDuration = "session_ends", "duration";
    /// `queries_max` reached.
    EndQueries = "session_ends", "queries";
    /// The client does not read its responses.
    EndSlowReader = "session_ends", "slow_reader";
    /// Ended as the session with the most unread octets, when its worker held too many.
    EndOwed = "session_ends", "owed_most";
    /// Broken framing or a message too short to answer.
    EndFraming = "session_ends", "framing";
    /// Far more invalid messages than queries.
    EndMalformed = "session_ends", "malformed";
    /// TLS broken inside the session.
    EndTls = "session_ends", "tls";
    /// Idle longest when another connection needed its place.
    EndEvicted = "session_ends", "evicted";
    /// The client may not ask: by its names, or since a reload.
    EndDenied = "session_ends", "denied";
    /// An operator banned the client (`dotd ban add`).
    EndBanned = "session_ends", "banned";
    /// Ended because of misuse (`[misuse]`).
    EndMisuse = "session_ends", "misuse";
    /// dotd is stopping.
    EndDrain = "session_ends", "drain";
    /// Moved to the next engine at an upgrade.
    EndMoved = "session_ends", "moved";
    /// dotd panicked in the session.
    EndPanic = "session_ends", "panic";
    /// Sessions that have ended and whose clients have not read every octet: a gauge.
    Lingering = "lingering", "sessions";
    /// Octets of responses that clients have not read: a gauge.
    OwedOctets = "owed_octets", "octets";
    /// Answers replaced by SERVFAIL because their client reads too slowly.
    NotKept = "owed", "not_kept";
    /// Octets written for clients that did not arrive because the connection ended first.
    LostOctets = "owed", "lost_octets";
    /// Messages received from clients.
    Received = "queries", "received";
    /// Forwarded to a backend.
    Forwarded = "queries", "forwarded";
    /// Answered by dotd itself.
    Responded = "queries", "responded";
    /// Answered from the cache.
    Cached = "queries", "cached";
    /// Waited for the answer to an equal query that was already at a backend.
    Joined = "queries", "joined";
    /// Dropped: QR=1.
    DroppedResponse = "queries", "dropped_is_response";
    /// Dropped, over TCP and TLS with its session: shorter than a header.
    DroppedShort = "queries", "dropped_short";
    /// Datagrams dropped: longer than any query, or from an address that no answer can reach (port 0, a multicast
    /// address).
    DroppedUnanswerable = "queries", "dropped_unanswerable";
    /// Datagrams of a load balancer dropped: they do not begin with a PROXY header.
    DroppedProxyHeader = "queries", "dropped_proxy_header";
    /// Datagrams dropped: their client may not ask.
    DroppedDenied = "queries", "dropped_denied";
    /// Dropped by a rule of a policy zone.
    DroppedPolicy = "queries", "dropped_policy";
    /// Dropped with their session because of misuse (`[misuse]`).
    DroppedMisuse = "queries", "dropped_misuse";
    /// Dropped: dotd panicked while it judged the message.
    DroppedPanic = "queries", "dropped_panic";
    /// Responses whose client had left, or that found no room in the socket over UDP.
    DroppedClientGone = "responses", "client_gone";
    /// Outcomes that a rule of a policy zone dropped.
    AnswerDropped = "responses", "dropped_policy";
    /// Responses written, rcode NOERROR.
    RcodeNoError = "responses", "NOERROR";
    /// Responses written, rcode FORMERR.
    RcodeFormErr = "responses", "FORMERR";
    /// Responses written, rcode SERVFAIL.
    RcodeServFail = "responses", "SERVFAIL";
    /// Responses written, rcode NXDOMAIN.
    RcodeNxDomain = "responses", "NXDOMAIN";
    /// Responses written, rcode NOTIMP.
    RcodeNotImp = "responses", "NOTIMP";
    /// Responses written, rcode REFUSED.
    RcodeRefused = "responses", "REFUSED";
    /// Responses written, any other rcode.
    RcodeOther = "responses", "other";
    /// Datagrams sent to backends.
    BackendSent = "backend", "sent";
    /// Queries sent again: no answer within a quarter of the backend's timeout.
    BackendRetransmitted = "backend", "retransmitted";
    /// `sendmmsg` calls; sent ÷ calls is the batch.
    BackendSendCalls = "backend", "send_calls";
    /// Datagrams that the kernel refused.
    BackendSendFailed = "backend", "send_failed";
    /// Datagrams received from backends.
    BackendReceived = "backend", "received";
    /// `recvmmsg` calls that returned datagrams.
    BackendReceiveCalls = "backend", "receive_calls";
    /// Times that a worker paused so that answers accumulate.
    BackendPauses = "backend", "pauses";
    /// Datagrams and messages over connections that match no query in flight: forged, or late.
    BackendUnmatched = "backend", "unmatched";
    /// Queries that no backend answered in time.
    BackendTimeout = "backend", "timeout";
    /// Queries whose backend could not be reached: ICMP or a refused connection.
    BackendUnreachable = "backend", "unreachable";
    /// Responses with TC=1, asked for again over TCP.
    BackendTruncated = "backend", "truncated";
    /// Queries asked again without the OPT that dotd had added, because the backend does not support EDNS.
    BackendWithoutEdns = "backend", "without_edns";
    /// Queries too long for a datagram on the path to the backend, asked over TCP.
    BackendTooLong = "backend", "too_long";
    /// Responses passed on with the backend's OPT unchanged, because records after it are compressed against each other.
    BackendOptEntangled = "backend", "opt_entangled";
    /// Queries written to connections.
    BackendStreamSent = "backend", "stream_sent";
    /// Writes to connections; sent ÷ writes is the batch.
    BackendStreamWrites = "backend", "stream_writes";
    /// Messages received over connections.
    BackendStreamReceived = "backend", "stream_received";
    /// Reads from connections that returned octets.
    BackendStreamReads = "backend", "stream_reads";
    /// Connections closed because their octets could not be framed.
    BackendStreamBroken = "backend", "stream_broken";
    /// Connections opened.
    BackendConnections = "backend", "connections";
    /// Connections that could not be opened.
    BackendConnectFailed = "backend", "connect_failed";
    /// Connections whose handshake failed: the backend does not speak TLS, or has another name or key.
    BackendTlsFailed = "backend", "tls_failed";
    /// Queries sent again because their connection was closed.
    BackendRetried = "backend", "retried";
    /// Queries moved to another connection of their backend, because theirs was silent.
    BackendMoved = "backend", "moved";
    /// Queries refused because the backend closes its connections when it gets them.
    BackendRefused = "backend", "refused";
    /// Times that a backend was set aside because it answered few of its queries, and others did better.
    BackendSetAside = "backend", "set_aside";
    /// Messages of zone transfers.
    BackendTransferred = "backend", "transferred";
    /// Queries given to another backend because theirs was silent or gone.
    BackendFailedOver = "backend", "failed_over";
    /// Queries given to a backend in clear, because its TLS failed and the config permits that.
    BackendInClear = "backend", "in_clear";
    /// Queries given to a second backend too, because the first took longer than usual.
    BackendHedged = "backend", "hedged";
    /// Second backends whose answer came first.
    BackendHedgeWon = "backend", "hedge_won";
    /// Second backends that answered neither NOERROR nor NXDOMAIN: the first one was awaited.
    BackendHedgeFailed = "backend", "hedge_failed";
    /// Late queries that got no second backend, because the budget was spent.
    BackendHedgeOverBudget = "backend", "hedge_over_budget";
    /// Queries refused because every slot was taken.
    BackendFull = "backend", "full";
    /// Connections in clear, of those accepted.
    AcceptedPlain = "do53", "accepted";
    /// Queries by UDP, of those received.
    ReceivedDatagram = "do53", "received_udp";
    /// Queries by TCP in clear, of those received.
    ReceivedPlain = "do53", "received_tcp";
    /// Responses by UDP with TC=1, because the client or the path takes no longer ones.
    TruncatedDatagram = "do53", "truncated";
    /// Responses by UDP that the kernel refused to send.
    DatagramSendFailed = "do53", "send_failed";
    /// Queries at the backends now: a gauge.
    BackendOutstanding = "backend_outstanding", "outstanding";
    /// Queries answered by a response that was still valid.
    CacheHit = "cache", "hits";
    /// Queries for which the cache had no valid response.
    CacheMissed = "cache", "misses";
    /// Queries that are not for the cache: signed, with a cookie, or with an option that dotd does not know.
    CacheBypassed = "cache", "bypassed";
    /// Queries answered by an expired response, because no backend gave a newer one.
    CacheStale = "cache", "stale";
    /// Responses added to the cache.
    CacheInserted = "cache", "inserts";
    /// Responses removed to make room.
    CacheEvicted = "cache", "evictions";
    /// Queries of the cache itself, to refresh a popular answer before it expires.
    CacheRefresh = "cache", "refreshes";
    /// Queries of the cache itself that are finished.
    CacheRefreshed = "cache", "refreshed";
    /// Responses in the caches: a gauge.
    CacheEntries = "cache_entries", "entries";
    /// Memory of these responses: a gauge.
    CacheOctets = "cache_octets", "octets";
    /// Queries that wait for the answer to an equal one: a gauge.
    CacheWaiting = "cache_waiting", "waiting";
    /// Steps of handshakes that waited for a turn.
    HandshakesWaited = "fairness", "handshakes_waited";
    /// Times that a session waited for its turn, because its client had used up the last one.
    TurnsWaited = "fairness", "turns_waited";
    /// Queries by UDP answered TC=1, because UDP or their client had its share in flight.
    DatagramsDeferred = "fairness", "datagrams_deferred";
    /// Queries answered SERVFAIL, because only the reserve was left at the backends, and their client had its share
    /// of that.
    QueriesOverShare = "fairness", "queries_over_share";
    /// Messages over their client's rate.
    QueriesOverRate = "fairness", "queries_over_rate";
    /// Messages over their client's rate that were refused.
    QueriesRefused = "fairness", "queries_refused";
    /// Connections and datagrams of clients whose address is on a deny list.
    AccessDenied = "access", "denied";
    /// Connections and datagrams of clients whose address is not on the allow list.
    AccessNotAllowed = "access", "not_allowed";
    /// Connections that asked for a server name that is not in `server_names`, or for none.
    AccessServerName = "access", "server_name";
    /// Connections whose certificate has no name in `client_names`.
    AccessClientName = "access", "client_name";
    /// Queries answered REFUSED, because their client may not ask.
    AccessRefused = "access", "queries_refused";
    /// Queries and answers that a rule of a policy zone made NXDOMAIN.
    PolicyNxDomain = "policy", "nxdomain";
    /// Queries and answers that a rule of a policy zone made NODATA.
    PolicyNoData = "policy", "nodata";
    /// Queries and answers that a rule answered with records of the zone, or with an alias and its records.
    PolicyLocal = "policy", "local_data";
    /// Queries and answers that a rule dropped.
    PolicyDropped = "policy", "dropped";
    /// Queries that a rule sent to TCP (TC=1); over connections they are answered as usual.
    PolicyTcpOnly = "policy", "tcp_only";
    /// Queries and answers that a rule let pass.
    PolicyPassthru = "policy", "passthru";
    /// Matches of rules in zones that only count.
    PolicyOnlyCounted = "policy", "only_counted";
    /// Rules that matched the client's address.
    PolicyByClient = "policy", "by_client";
    /// Rules that matched the qname.
    PolicyByName = "policy", "by_name";
    /// Rules that matched the name of an alias in the answer.
    PolicyByAlias = "policy", "by_alias";
    /// Rules that matched an address in the answer.
    PolicyByAddress = "policy", "by_address";
    /// Answers replaced by those for the alias of a rule.
    PolicyAskedAgain = "policy", "asked_again";
    /// NOTIFY messages from primary servers of policy zones.
    PolicyNotified = "policy", "notified";
    /// NOTIFY messages about other zones, from other addresses, or with a wrong signature.
    PolicyNotifyRefused = "policy", "notify_refused";
    /// Messages over the rate of their client's tenant, which were refused.
    TenantOverRate = "tenants", "queries_refused";
    /// Messages of clients outside their tenant's `allow`, which were refused.
    TenantNotAllowed = "tenants", "not_allowed";
    /// Domains and clients with a misuse.
    MisuseFound = "misuse", "found";
    /// Queries below a domain with a flood of random names, beyond its budget.
    MisuseRandomNames = "misuse", "random_names";
    /// Queries of a client below a domain through which it has a tunnel.
    MisuseTunnel = "misuse", "tunnel";
    /// Messages of clients whose answers are failures.
    MisuseFailures = "misuse", "failures";
    /// Messages of clients that ask too much.
    MisuseQueries = "misuse", "queries";
    /// Messages of clients whose answers are too long together.
    MisuseAnswerOctets = "misuse", "answer_octets";
    /// Misuse that was only counted, and answered as usual.
    MisuseOnlyCounted = "misuse", "only_counted";
    /// Messages over connections that were delayed because of misuse.
    MisuseDelayed = "misuse", "delayed";
    /// Datagrams sent to TCP (TC=1) because of misuse.
    MisuseTruncated = "misuse", "truncated";
    /// Queries answered REFUSED because of misuse.
    MisuseRefused = "misuse", "refused";
    /// Messages that ended their session because of misuse.
    MisuseClosed = "misuse", "closed";
}
