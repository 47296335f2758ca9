//! The page on `control.http`: what it shows in a browser, what an operator does from it, and who may.
//!
//! Before: a dotd with a page. After: headless Chromium has shown it, and the verbs say the same.
//! Never: looks into a running process but by what an operator has.

use std::{
    env,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
};

use dot_tests::{
    harness::{
        browser::Browser,
        clients::{DOT_PORT, tcp, udp},
        config::Config,
        dot::Dot,
        eventually,
        message::{A, Query},
        netns::{CLIENT_V4, Namespace, Network, SERVER_V4},
        pki::Authority,
        scene::{HONEST, honest},
        scratch::Scratch,
        scripted::Scripted,
        server::Server,
    },
    require,
};

/// A config with the page, as a reload would see it too.
fn with_page() -> Config {
    Config::new().set("control", "http", "\"127.0.0.1:8853\"")
}

/// One HTTP request with these lines in its head: the status, and all of the answer.
fn asked(namespace: &Namespace, request: &str, lines: &str, body: &str) -> (u16, String) {
    let mut stream = tcp(namespace, "127.0.0.1:8853".parse().expect("an address"));
    let head =
        format!("{request} HTTP/1.1\r\n{lines}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).expect("open");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("UTF-8");
    (answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_default(), answer)
}

/// Goal: who has no token reads nothing by default and changes nothing ever; a request by another name or from another site's page is
/// refused; nothing that the page loads is from elsewhere; the token is for its owner, and `dotd page` has it; the config opens
/// reading or turns the page off by a reload. Method: requests by hand, each without one thing. Covers: A-583, A-584, A-585
#[test]
fn only_who_has_the_token_acts() {
    require!(Root);
    let network = Network::new();
    let config = with_page().xdp("off");
    let dotd = Server::start(&network, &config);
    let file = dotd.folder().join("run/page.token");
    let token = std::fs::read_to_string(&file).expect("a token").trim().to_owned();
    assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let said = dotd.operate(&["page"]);
    assert!(said.has(&format!("http://127.0.0.1:8853/#{token}")), "{}", said.text);
    let ask = |request: &str, lines: &str, body: &str| asked(&network.server, request, lines, body);
    let host = "host: 127.0.0.1:8853\r\n";
    let (code, page) = ask("GET /", host, "");
    assert_eq!(code, 200);
    let lower = page.to_lowercase();
    assert!(lower.contains("content-security-policy: default-src 'none'; script-src 'self';"), "{page}");
    assert!(lower.contains("x-content-type-options: nosniff") && !page.contains("http://"), "{page}");
    let own = format!("{host}authorization: Bearer {token}\r\n");
    let wrong = format!("{host}authorization: Bearer {}\r\n", "0".repeat(64));
    let kind = "content-type: application/json\r\n";
    let drain = r#"{"is_on":true}"#;
    for (what, code, request, lines, body) in [
        ("no token", 401, "GET /api/state", host.to_owned(), ""),
        ("another token", 401, "GET /api/state", wrong.clone(), ""),
        ("the token", 200, "GET /api/state", own.clone(), ""),
        ("localhost", 200, "GET /api/state", own.replace("127.0.0.1", "localhost"), ""),
        ("another name", 421, "GET /api/state", own.replace("127.0.0.1", "rebound.example"), ""),
        ("another name", 421, "GET /", "host: rebound.example\r\n".to_owned(), ""),
        ("no token", 401, "POST /api/drain", format!("{host}{kind}"), drain),
        ("another token", 401, "POST /api/drain", format!("{wrong}{kind}"), drain),
        ("a form", 422, "POST /api/drain", format!("{own}content-type: text/plain\r\n"), drain),
        (
            "another site",
            403,
            "POST /api/drain",
            format!("{own}{kind}origin: http://evil.example\r\n"),
            drain,
        ),
        ("another site", 403, "POST /api/drain", format!("{own}{kind}sec-fetch-site: cross-site\r\n"), drain),
    ] {
        let (found, answer) = ask(request, &lines, body);
        assert_eq!(found, code, "{request} with {what}: {answer}");
    }
    assert!(dotd.status()["drain"].is_null());
    let from_here = format!("{own}{kind}origin: http://127.0.0.1:8853\r\nsec-fetch-site: same-origin\r\n");
    assert_eq!(ask("POST /api/drain", &from_here, drain).0, 200);
    assert!(dotd.status()["drain"].is_object());

    let open = config.clone().set("control", "page", "\"open\"");
    dotd.rewrite_config(&open.clone().set("control", "page_hosts", "[\"dns.example\"]"));
    assert!(dotd.operate(&["reload"]).is_success);
    let named = "host: DNS.example:8853\r\n";
    let (code, answer) = ask("GET /api/state", named, "");
    assert!(code == 200 && answer.contains("\"can_change\":false"), "{answer}");
    assert_eq!(ask("POST /api/drain", &format!("{named}{kind}"), drain).0, 401, "reading alone is open");
    for (origin, code) in [("https://dns.example", 200), ("https://evil.example", 403)] {
        let by_proxy = format!("{own}{kind}origin: {origin}\r\n");
        assert_eq!(ask("POST /api/drain", &by_proxy, drain).0, code, "a proxy that does TLS: {origin}");
    }
    dotd.rewrite_config(&config.set("control", "page", "\"off\""));
    assert!(dotd.operate(&["reload"]).is_success);
    assert_eq!((ask("GET /", host, "").0, ask("GET /api/state", &own, "").0), (404, 404));
    assert_eq!(ask("GET /metrics", "host: anything\r\n", "").0, 200, "metrics are as before");
    let refusal = dotd.operate(&["page"]);
    assert!(!refusal.is_success && refusal.has("control.page is \"off\""), "{}", refusal.text);
    drop(dotd.stop());
    assert!(!file.exists());
}

/// The text of an element, as an expression.
fn text(id: &str) -> String {
    format!("document.getElementById('{id}').innerText")
}

fn until_has(browser: &mut Browser, id: &str, part: &str) {
    browser.until(&format!("{}.includes('{part}')", text(id)));
}

fn chat(session: &mut Dot, times: u16) {
    for id in 0..times {
        assert_eq!(session.exchange(&Query::new(id, "www.dotd.test", A).octets()).rdata(A), [HONEST]);
    }
}

/// Goal: the page shows in a browser what verbs say, a drain and bans are made and lifted from it, by mouse and by keyboard, names
/// that clients chose are shown as they are, it fits a phone, follows dark and light, asks no other host, and the browser
/// complains of nothing. Method: headless Chromium; a ban whose reason and a certificate whose file name are markup; pictures are
/// written where DOTD_PICTURES says. Covers: C-582, C-583, C-705, A-586
#[test]
fn the_page_is_worked_in_a_browser() {
    require!(Root, Bpf, Command("chromium"));
    let (network, scratch) = (Network::new(), Scratch::new());
    let backend = Scripted::start(&network, honest);
    let issued = Authority::new().issue("dns.example");
    let chain = scratch.write("<img src=x onerror=hacked=1>.pem", &issued.cert);
    let config = with_page().certificate(&chain, &scratch.write("key.pem", &issued.key));
    let config = config.set("listen", "do53", "[\"0.0.0.0:53\"]");
    let dotd = Server::start(&network, &config.backend_with(backend.address, "name = \"resolver-1\""));
    let url = dotd.operate(&["page"]).text.trim().to_owned();
    let mut browser = Browser::start(&network.server, &scratch);
    browser.shape(1200, 1000, false);
    browser.go(&url);
    browser.until("!document.getElementById('main').hidden");
    assert_eq!(browser.evaluate("location.href"), "http://127.0.0.1:8853/", "no token in the address");
    let mut session = Dot::connect(&network.client, SERVER_V4);
    let mut cleartext = tcp(&network.client, SocketAddr::new(SERVER_V4, DOT_PORT));
    cleartext.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("open");
    drop(cleartext);
    eventually("the page has counted queries", || {
        chat(&mut session, 20);
        let is_listed = format!("{}.includes('{CLIENT_V4}')", text("clients"));
        let is_counted = format!("{is_listed} && !['', '0'].includes({})", text("now-queries"));
        (browser.evaluate(&is_counted) == true).then_some(())
    });
    everything_is_shown(&mut browser, &issued.pin);
    bans_are_made_and_lifted(&mut browser, &dotd);
    let complaints = browser.complaints();
    assert!(
        complaints.iter().all(|one| one.contains("422")),
        "a refusal is in the browser's log: {complaints:?}"
    );
    drains_by_keyboard(&mut browser, &dotd);
    backends_and_tls_are_switched(&mut browser, &dotd);
    // A ban and the switch have ended the session.
    let mut session = Dot::connect(&network.client, SERVER_V4);
    it_fits_each_shape(&mut browser, &mut session);
    let elsewhere = "performance.getEntriesByType('resource').filter(one => new URL(one.name).origin !== location.origin && !one.name.startsWith('data:')).length";
    assert_eq!(browser.evaluate(elsewhere), 0);
    assert_eq!(browser.evaluate("typeof hacked"), "undefined");
    assert_eq!(browser.complaints(), [""; 0]);
    let socket = udp(&network.client, SocketAddr::new(SERVER_V4, 53));
    socket.send(&Query::new(3, "udp.dotd.test", A).octets()).expect("sent");
    until_has(&mut browser, "encryption-says", "1 queries came in clear");
}

fn everything_is_shown(browser: &mut Browser, pin: &str) {
    for (id, part) in [
        ("backends", "resolver-1"),
        ("backends", "up"),
        ("encryption-says", "TLS 1.3"),
        ("drops", "cleartext_on_dot"),
        ("drops", "xdp.cleartext_853"),
        ("xdp-says", "covered by XDP"),
        ("certificates", pin),
        ("certificates", "<img src=x onerror=hacked=1>.pem"),
    ] {
        until_has(browser, id, part);
    }
    browser.evaluate("document.querySelector('details').open = true");
    until_has(browser, "config", "backend.0.name");
    until_has(browser, "config", "default");
    browser.evaluate("document.querySelector('details').open = false");
}

/// A ban by the form, lifted by the keyboard; another by the row of the client; one of a client that does not exist.
fn bans_are_made_and_lifted(browser: &mut Browser, dotd: &Server) {
    let (client, reason) = (CLIENT_V4.to_string(), "<b onclick=hacked=1>x</b>");
    browser.evaluate("document.getElementById('ban-client').focus()");
    browser.type_text("198.51.100.7");
    browser.evaluate("document.getElementById('ban-reason').focus()");
    browser.type_text(reason);
    browser.press("Enter");
    until_has(browser, "bans", reason);
    assert!(dotd.operate(&["ban", "list"]).has("198.51.100.7"));
    browser.evaluate("document.querySelector('#bans button').focus()");
    browser.press("Enter");
    browser.until(&format!("!{}.includes('198.51.100.7')", text("bans")));
    assert!(!dotd.operate(&["ban", "list"]).has("198.51.100.7"));
    browser.until("document.querySelector('#clients button')");
    browser.evaluate("document.querySelector('#clients button').click()");
    until_has(browser, "bans", &client);
    assert!(dotd.operate(&["ban", "del", &client]).is_success);
    let nobody = "document.getElementById('ban-client').value = 'nobody'; document.getElementById('ban').requestSubmit()";
    browser.evaluate(nobody);
    browser.until(&format!("{} !== ''", text("ban-says")));
}

fn drains_by_keyboard(browser: &mut Browser, dotd: &Server) {
    browser.evaluate("document.getElementById('drain').focus()");
    for (word, is_drained) in [("Undrain", true), ("Drain", false)] {
        browser.press("Enter");
        browser.until(&format!("{} === '{word}'", text("drain")));
        assert_eq!(dotd.status()["drain"].is_object(), is_drained);
    }
}

/// A backend is drained and enabled, its weight changed; DNS over TLS is switched off, asked twice, and on.
fn backends_and_tls_are_switched(browser: &mut Browser, dotd: &Server) {
    let is_drained = || dotd.status()["backends"][0]["is_drained"] == true;
    for (word, drained) in [("Enable", true), ("Drain", false)] {
        browser.evaluate("document.querySelector('#backends button').focus()");
        browser.press("Enter");
        browser.until(&format!("document.querySelector('#backends button').textContent === '{word}'"));
        assert_eq!(is_drained(), drained);
    }
    browser.evaluate("document.querySelector('#backends input').focus()");
    browser.type_text("7");
    browser.press("Enter");
    eventually("the backend has its weight", || (dotd.status()["backends"][0]["weight"] == 7).then_some(()));
    let button = "document.getElementById('dot')";
    browser.evaluate(&format!("{button}.click()"));
    assert!(dotd.status()["off"].is_null(), "it is asked again");
    browser.evaluate(&format!("{button}.click()"));
    until_has(browser, "summary", "DNS over TLS is switched off");
    assert!(dotd.status()["off"].is_object());
    browser.until(&format!("{button}.textContent === 'Switch DNS over TLS on'"));
    browser.evaluate(&format!("{button}.click()"));
    browser.until(&format!("!{}.includes('switched off')", text("summary")));
    assert!(dotd.status()["off"].is_null());
}

fn it_fits_each_shape(browser: &mut Browser, session: &mut Dot) {
    let paper = "getComputedStyle(document.body).backgroundColor";
    let mut papers = Vec::new();
    for (name, width, is_dark) in
        [("page", 1200, false), ("page-dark", 1200, true), ("page-phone", 360, false)]
    {
        browser.shape(width, 1000, is_dark);
        papers.push(browser.evaluate(paper));
        let is_narrow = "document.documentElement.scrollWidth <= innerWidth";
        assert_eq!(browser.evaluate(is_narrow), true, "{width} points are enough");
        chat(session, 4);
        if let Some(folder) = env::var_os("DOTD_PICTURES") {
            let file = std::path::Path::new(&folder).join(format!("{name}.png"));
            std::fs::write(file, browser.picture()).expect("a picture");
        }
    }
    assert!(papers[0] == papers[2] && papers[0] != papers[1], "{papers:?}");
}
