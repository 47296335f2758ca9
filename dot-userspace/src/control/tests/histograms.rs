//! Histograms in a scrape: their form for each kind of scraper, and the page that lists them.

use super::*;

/// Goal: classic histograms have their sum, their count and cumulative buckets that end in +Inf with the count. Method: the
/// source's two durations of one stage, one of which is beyond every bound. Covers: C-401
#[test]
fn classic_buckets_are_cumulative_and_whole() {
    let text = beside_http(still(), async |address| ask_tcp(address, "GET /metrics").await.2);
    let of_queue: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("dotd_stage_duration_seconds_") && line.contains("\"queue\""))
        .collect();
    assert_eq!(of_queue.len(), 2 + 21, "{of_queue:?}");
    let value = |end: &str| {
        let line =
            of_queue.iter().find(|line| line.contains(end)).unwrap_or_else(|| panic!("{end}: {of_queue:?}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let buckets: Vec<_> = of_queue.iter().filter(|line| line.contains("_bucket{")).collect();
    let counts: Vec<f64> =
        buckets.iter().map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect();
    assert!(counts.is_sorted(), "{buckets:?}");
    assert_eq!((value("le=\"0.0000152587890625\""), value("le=\"0.000030517578125\"")), (0.0, 1.0));
    assert_eq!((value("le=\"8.0\""), value("le=\"+Inf\""), value("_count{")), (1.0, 2.0, 2.0));
    assert!((value("_sum{") - 100.000_02).abs() < 1e-9);
    assert!(text.contains(
        "# TYPE dotd_backend_duration_seconds histogram\n# UNIT dotd_backend_duration_seconds seconds\n"
    ));
}

/// Goal: a scraper that asks for Prometheus's binary form as Prometheus does gets it, and no other scraper does.
/// Method: the Accept header of Prometheus 2.42 with native histograms; the length before the first family, whose
/// name follows. Covers: C-401
#[test]
fn the_binary_form_is_for_those_who_ask() {
    let asked = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: application/vnd.google.protobuf;\
                 proto=io.prometheus.client.MetricFamily;encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8\r\n\r\n";
    let answer = beside_http(still(), async |address| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    });
    let split = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..split]).to_lowercase();
    assert!(
        head.contains(
            "content-type: application/vnd.google.protobuf; proto=io.prometheus.client.metricfamily"
        )
    );
    let body = &answer[split + 4..];
    assert_eq!(&body[1..3], &[0x0a, 15], "field 1, a name of fifteen octets");
    assert_eq!(&body[3..18], b"dotd_build_info");
}

/// Goal: docs/metrics.md lists every family of a scrape with its type, labels and meaning, and no other. Method: the
/// page is generated from a scrape and compared. Covers: C-402
#[test]
fn the_page_of_metrics_is_what_a_scrape_has() {
    let text = beside_http(still(), async |address| ask_tcp(address, "GET /metrics").await.2);
    super::super::metrics::hold_page(&text);
}
