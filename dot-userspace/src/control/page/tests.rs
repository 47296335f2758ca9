//! Tests of the page's checks and of its files.

use axum::http::HeaderValue;

use super::*;

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    list.iter().map(pair).collect()
}

/// Goal: each check refuses exactly the requests that it is for, without help of the others. Method: names, origins
/// and tokens, right and nearly right.
#[test]
fn each_guard_holds_by_itself() {
    let access =
        PageAccess { page: Page::Token, hosts: vec!["dns.example".into()], token: Some("secret".into()) };
    let is_named = |host: &str| is_our_name(&access, &Uri::from_static("/"), &headers(&[("host", host)]));
    for host in [
        "127.0.0.1:8853",
        "192.0.2.1",
        "[::1]:8853",
        "localhost:1",
        "LOCALHOST",
        "dns.example:8853",
        "DNS.example",
    ] {
        assert!(is_named(host), "{host}");
    }
    for host in [
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "dns.example.evil",
        "xdns.example",
        "localhost.evil",
        "a b",
    ] {
        assert!(!is_named(host), "{host}");
    }
    assert!(!is_our_name(&access, &Uri::from_static("/"), &HeaderMap::new()));
    let from = |list: &[(&str, &str)]| {
        is_from_here(&access, &headers(&[&[("host", "127.0.0.1:8853")], list].concat()))
    };
    assert!(from(&[]) && from(&[("origin", "http://127.0.0.1:8853"), ("sec-fetch-site", "same-origin")]));
    for (name, value) in [
        ("origin", "http://127.0.0.1:8854"),
        ("origin", "https://127.0.0.1:8853"),
        ("origin", "null"),
        ("origin", "http://dns.example"),
        ("origin", "https://evil.example"),
        ("origin", "https://dns.example.evil"),
        ("origin", "https://"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "none"),
    ] {
        assert!(!from(&[(name, value)]), "{name}: {value}");
    }
    // A proxy that does TLS, under its name in the config.
    assert!(from(&[("origin", "https://dns.example")]) && from(&[("origin", "https://dns.example:8443")]));
    assert!(!from(&[("origin", "https://dns.example"), ("sec-fetch-site", "cross-site")]));
    let has = |said: &str| has_token(&access, &headers(&[("authorization", said)]));
    assert!(has("Bearer secret"));
    for said in ["", "secret", "Bearer ", "Bearer secre", "Bearer secrets", "Bearer Secret", "Basic secret"] {
        assert!(!has(said), "{said}");
    }
    assert!(!has_token(
        &PageAccess { token: None, ..access.clone() },
        &headers(&[("authorization", "Bearer ")])
    ));
}

/// Goal: no part of the page names another host, inserts text as markup, or has code that its content security policy
/// forbids. Method: searches for the names of such functions.
#[test]
fn the_page_reads_no_text_as_markup() {
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval(",
        "new Function",
        "setAttribute(\"style",
    ] {
        assert!(!SCRIPT.contains(word), "{word}");
    }
    for text in [PAGE, STYLE] {
        assert!(!text.contains("http:") && !text.contains("https:") && !text.contains("url("));
    }
    assert_eq!(SCRIPT.matches("http").count(), SCRIPT.matches("http://www.w3.org/2000/svg").count());
    assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick") && !PAGE.contains("<script>"));
}
