//! An operator's view of a running dotd: status, metrics and log lines, which must agree.
//!
//! Before: a dotd with scripted backends. After: each fact is found under the name that the config gives it.
//! Never: looks into a running process except with an operator's means: verbs, HTTP and standard error.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use dot_tests::{
    harness::{
        clients::{http, tool},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::{Network, SERVER_V4},
        process::{Process, bound_to_namespace},
        scene::{HONEST, honest},
        scratch::Scratch,
        scripted::{Act, Received, Scripted},
        server::{Server, binary},
    },
    require,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A config whose metrics can be scraped, without XDP.
fn watched() -> Config {
    Config::new().xdp("off").set("control", "http", "\"127.0.0.1:8853\"")
}

/// Goal: a backend has one name everywhere: in `dotd status`, in the label `backend` of metrics, in log lines; a
/// backend without a name is called by its address, and a reload changes names. Method: one backend with a name that
/// answers, one without; then a name for a port where nothing listens. Covers: C-400
#[test]
fn a_backend_has_one_name_everywhere() {
    require!(Root);
    let network = Network::new();
    let backend = Scripted::start(&network, honest);
    let plain = "127.0.0.1:5399".parse().expect("an address");
    let config = watched().backend_with(backend.address, "name = \"resolver-1\"");
    let mut dotd = Server::start(&network, &config.clone().backend_with(plain, ""));
    let status = dotd.status();
    assert_eq!(status["backends"][0]["name"], "resolver-1");
    assert_eq!(status["backends"][0]["address"], backend.address.to_string());
    assert_eq!(status["backends"][1]["name"], "127.0.0.1:5399");
    let socket = dotd.folder().join("run/control.sock").display().to_string();
    let dotd_program = binary().display().to_string();
    let said = tool(&network.server, &dotd_program, &["status", "--socket", &socket]);
    let row = format!("backend      resolver-1: {} (udp), ", backend.address);
    assert!(said.has(&row) && said.has("backend      127.0.0.1:5399 (udp), "), "{}", said.text);
    let metrics = eventually("both are known", || {
        let metrics = http(&network.server, "/metrics");
        (metrics.contains("dotd_backend_up{backend=\"resolver-1\"} 1")
            && metrics.contains("dotd_backend_up{backend=\"127.0.0.1:5399\"} 0"))
        .then_some(metrics)
    });
    assert!(!metrics.contains(&format!("backend=\"{}\"", backend.address)), "{metrics}");
    eventually("the log says it", || dotd.stderr().contains("backend=127.0.0.1:5399").then_some(()));

    dotd.rewrite_config(&config.backend_with(plain, "name = \"spare\""));
    dotd.signal(Signal::SIGHUP);
    eventually("the new name", || (dotd.status()["backends"][1]["name"] == "spare").then_some(()));
    let metrics = http(&network.server, "/metrics");
    assert!(metrics.contains("dotd_backend_up{backend=\"spare\"} 0"), "health is still known: {metrics}");
}

/// Goal: each stage of a query over TLS is measured: the handshake by its kind, the queue, the backend by its name, the
/// write and the whole query; `stats` has quantiles and `/metrics` the same counts; and a page lists every family of a
/// scrape, and no other. Method: two sessions of 20 queries each to a backend that takes 20 ms for its answers; the
/// whole takes longer than the backend's part, which takes longer than 20 ms. Covers: C-401, C-402
#[test]
fn every_stage_is_measured() {
    require!(Root);
    let took = std::time::Duration::from_millis(20);
    let late = move |query: &Received| {
        std::thread::sleep(took);
        honest(query)
    };
    let network = Network::new();
    let backend = Scripted::start(&network, late);
    let dotd = Server::start(&network, &watched().backend_with(backend.address, "name = \"slow\""));
    for _ in 0..2 {
        let mut session = Dot::connect(&network.client, SERVER_V4);
        for id in 0..20 {
            assert_eq!(session.exchange(&Query::new(id, "www.dotd.test", A).octets()).rdata(A), [HONEST]);
        }
    }
    let stats = dotd.counts("all are measured", |stats| latency(&stats.0, "forwarded")["count"] == 40).0;
    for (label, count) in [("handshake_full", 2), ("accept_to_hello", 2), ("queue", 40), ("slow", 40)] {
        assert_eq!(latency(&stats, label)["count"], count, "{label}: {}", stats["latency"]);
    }
    let [whole, at_backend] =
        ["forwarded", "slow"].map(|label| latency(&stats, label)["p50_us"].as_f64().unwrap());
    // A bucket is 9 % wide.
    assert!(whole * 1.1 >= at_backend && at_backend * 1.1 >= 20_000.0, "{whole} {at_backend}");
    assert_eq!(stats["backends"]["slow"]["NOERROR"], 40);

    let metrics = http(&network.server, "/metrics");
    for line in [
        r#"dotd_query_duration_seconds_count{transport="dot",disposition="forwarded"} 40"#,
        r#"dotd_backend_duration_seconds_count{backend="slow",transport="udp"} 40"#,
        r#"dotd_backend_duration_seconds_bucket{le="0.0078125",backend="slow",transport="udp"} 0"#,
        r#"dotd_backend_responses_total{backend="slow",rcode="NOERROR"} 40"#,
        r#"dotd_stage_duration_seconds_count{stage="handshake_full"} 2"#,
    ] {
        assert!(metrics.lines().any(|found| found.trim_end() == line), "{line} is not in {metrics}");
    }
    let page = include_str!("../../../docs/metrics.md");
    let families = metrics.lines().filter_map(|line| line.trim_end().strip_prefix("# TYPE "));
    let mut rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `dotd_")).collect();
    for family in families {
        let (name, kind) = family.split_once(' ').expect("a name and a type");
        let row = format!("| `{name}` | {kind} |");
        let place = rows.iter().position(|found| found.starts_with(&row));
        let _ = rows.swap_remove(place.unwrap_or_else(|| panic!("docs/metrics.md has no {row}")));
    }
    // A family without rows does not appear in a scrape.
    let is_off_here = |row: &&str| {
        let of_xdp_and_policy = ["dotd_xdp_", "dotd_packets", "dotd_bans_", "dotd_policy_", "dotd_tenant_"];
        let of_tls_backends = [
            "dotd_backend_tls_",
            "dotd_backend_downgrade",
            "dotd_backend_falls_back",
            "dotd_backend_key_changes",
        ];
        of_xdp_and_policy.iter().chain(&of_tls_backends).any(|name| row[3..].starts_with(name))
    };
    assert!(rows.iter().all(is_off_here), "not in a scrape: {rows:?}");
}

/// The row of `latency` that has this value of a label, or nothing.
fn latency<'a>(stats: &'a Value, label: &str) -> &'a Value {
    let mut rows = stats["latency"].as_array().into_iter().flatten();
    let has = |row: &&Value| {
        row["labels"].as_object().is_some_and(|labels| labels.values().any(|value| value == label))
    };
    rows.find(has).unwrap_or(&Value::Null)
}

/// Goal: a backend that answers its checks and gives clients SERVFAIL is not simply "up": its state is "failing", with
/// the share, and `status` says what clients get; when it answers again it is "up". Method: a backend that gives
/// SERVFAIL for all names except the root, then for none; queries until `status` says so. Covers: A-393
#[test]
fn status_says_what_clients_hear() {
    require!(Root);
    let network = Network::new();
    let is_broken = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&is_broken);
    let backend = Scripted::start(&network, move |query| {
        let mut acts = honest(query);
        if flag.load(Relaxed)
            && let Act::Send(reply) = &mut acts[0]
        {
            reply[3] = reply[3] & 0xf0 | 2;
        }
        acts
    });
    let dotd = Server::start(&network, &watched().backend_with(backend.address, "name = \"broken\""));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut until = |what: &str, is_so: &dyn Fn(&Value) -> bool| {
        eventually(what, || {
            let _ = session.exchange(&Query::new(1, "www.dotd.test", A).octets());
            let status = dotd.status();
            is_so(&status).then_some(status)
        })
    };
    let status = until("it fails", &|status| status["backends"][0]["state"] == "failing");
    assert_eq!(status["backends"][0]["servfail_percent"], 100);
    let status = until("clients hear it", &|status| status["servfail_percent"].is_u64());
    assert!(status["servfail_percent"].as_u64() > Some(50), "{status}");
    let socket = dotd.folder().join("run/control.sock").display().to_string();
    let said = tool(&network.server, &binary().display().to_string(), &["status", "--socket", &socket]);
    assert!(said.has(", failing\n") && said.has("clients      get SERVFAIL for "), "{}", said.text);
    assert!(http(&network.server, "/metrics").contains("state=\"failing\"} 1"));
    is_broken.store(false, Relaxed);
    until("it is well", &|status| status["backends"][0]["state"] == "up");
}

/// Goal: Prometheus reads from a scrape what dotd counted: counters by label, classic histograms, and native ones where
/// it asks for them; and it accepts the alert rules. Method: Debian's Prometheus scrapes a dotd that answered 20
/// queries, once without and once with its feature; promtool queries it, and checks the rules. Covers: C-524
#[test]
fn prometheus_reads_what_dotd_counts() {
    require!(Root, Command("prometheus"), Command("promtool"));
    let network = Network::new();
    let backend = Scripted::start(&network, honest);
    let dotd = Server::start(&network, &watched().backend_with(backend.address, "name = \"one\""));
    let mut session = Dot::connect(&network.client, SERVER_V4);
    for id in 0..20 {
        assert_eq!(session.exchange(&Query::new(id, "www.dotd.test", A).octets()).rdata(A), [HONEST]);
    }
    dotd.counts("all are measured", |stats| latency(&stats.0, "forwarded")["count"] == 20);
    let scratch = Scratch::new();
    let rules = scratch.write("alerts.yml", include_str!("../../../packaging/prometheus-alerts.yml"));
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nrule_files: [\"{}\"]\nscrape_configs:\n- job_name: dotd\n  static_configs: [{{ \
         targets: [\"127.0.0.1:8853\"] }}]\n",
        rules.display()
    );
    let config = scratch.write("prometheus.yml", config).display().to_string();
    assert!(tool(&network.server, "promtool", &["check", "config", &config]).is_success);
    let whole = "dotd_query_duration_seconds";
    let own = "{disposition=\"forwarded\",transport=\"dot\"}";
    for (features, counted, quantile) in [
        (
            "memory-snapshot-on-shutdown",
            format!("{whole}_count{own}"),
            format!("sum by (le) ({whole}_bucket)"),
        ),
        ("native-histograms", format!("histogram_count({whole}{own})"), format!("sum ({whole})")),
    ] {
        let mut command = bound_to_namespace("prometheus");
        command.args([
            format!("--config.file={config}"),
            format!("--storage.tsdb.path={}", scratch.folder(features).display()),
            "--web.listen-address=127.0.0.1:9090".to_owned(),
            format!("--enable-feature={features}"),
        ]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let _prometheus = Process::start("prometheus", &network.server, &scratch, command);
        let ask = |query: &str| {
            tool(&network.server, "promtool", &["query", "instant", "http://127.0.0.1:9090", query]).text
        };
        eventually("it has scraped", || ask(&counted).contains(" => 20 @").then_some(()));
        assert!(ask("dotd_backend_responses_total{backend=\"one\",rcode=\"NOERROR\"}").contains(" => 20 @"));
        let median = ask(&format!("histogram_quantile(0.5, {quantile})"));
        let seconds = median.split("=> ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        assert!(seconds.is_some_and(|seconds| seconds > 0.0 && seconds < 8.0), "{features}: {median}");
        assert!(ask("up").contains(" => 1 @"));
    }
}
