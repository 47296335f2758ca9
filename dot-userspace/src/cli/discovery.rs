//! `dotd discovery`: settings with which clients find this dotd: DHCP options, profiles, and lines for the configs of
//! other programs.
//!
//! Before: a config and its certificates. After: text to paste, for each program.
//! Never: asks the running dotd, opens a listener or changes a file; names an address that no client can reach.
//!
//! Source: RFC 9463 §4.1, §5.1 and §6.1 (options), RFC 9462, RFC 8310 (profiles), RFC 7858 §4.2 (pins).

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
};

use super::error::CliError;
use crate::{
    config::{self, Config},
    dns,
    tls::{Certified, certificate},
};

/// The facts that clients need.
struct Known {
    name: String,
    pin: String,
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    port: u16,
    /// Whether the certificate covers all of the addresses.
    covers: bool,
}

/// The text; `addresses` replace those that the config names.
pub(super) fn discovery(addresses: &[IpAddr], path: Option<&Path>) -> Result<String, CliError> {
    let placed = config::load_placed(path)?;
    let known = known(&placed.config, addresses).map_err(CliError::Refused)?;
    let mut text = String::new();
    summary(&mut text, &placed.config, &known);
    options(&mut text, &known);
    clients(&mut text, &known);
    profile(&mut text, &known);
    Ok(text)
}

fn known(config: &Config, addresses: &[IpAddr]) -> Result<Known, String> {
    let loaded = certificate::load_all(&config.tls, &config.server.state_dir, &[]);
    let identities = if config.tls.certificates.is_empty() {
        Vec::new()
    } else {
        loaded.map_err(|error| error.to_string())?.identities
    };
    let certified = Certified::all(&identities);
    let (name, certified) = Certified::designated(&certified, &config.discovery.name).ok_or(
        "no certificate with a name: clients find a resolver by the name of its certificate; name one in tls.certificates",
    )?;
    let listener =
        config.listen.dot.first().ok_or("listen.dot is empty: this dotd serves no DNS over TLS")?;
    let port = listener.port();
    let own: Vec<IpAddr> = match addresses {
        [] => config.listen.dot.iter().filter(|at| at.port() == port).filter_map(reachable).collect(),
        addresses => addresses.to_vec(),
    };
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = own.iter().partition(|address| address.is_ipv4());
    if own.is_empty() {
        return Err(
            "no listen address is reachable by clients: name their addresses with --address".to_owned()
        );
    }
    let covers = own.iter().all(|address| certified.addresses.contains(address));
    Ok(Known { name: name.to_owned(), pin: certified.pin.clone(), v4, v6, port, covers })
}

/// The address of a listener; for a wildcard, the source address that this machine uses.
fn reachable(listener: &SocketAddr) -> Option<IpAddr> {
    let address = listener.ip();
    if !address.is_unspecified() {
        return Some(address).filter(|address| !address.is_loopback());
    }
    // `connect` on UDP looks up the route and sends nothing. The addresses are for documentation, and only the
    // default route leads to them.
    let (any, far) =
        if address.is_ipv4() { ("0.0.0.0:0", "192.0.2.1:853") } else { ("[::]:0", "[2001:db8::1]:853") };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(far).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then_some(own)
}

fn summary(text: &mut String, config: &Config, known: &Known) {
    let Known { name, pin, port, .. } = known;
    let _ = writeln!(text, "# {name}, {}, port {port}, pin-sha256=\"{pin}\"", list(known, ", "));
    let ddr = match (config.discovery.ddr, known.covers) {
        (false, _) => "off: discovery.ddr is false",
        (true, true) => {
            "on: clients that ask one of these addresses in clear discover DNS over TLS (RFC 9462)"
        }
        (true, false) => {
            "partly: the certificate does not cover all of these addresses; add them to its subjectAltName"
        }
    };
    let _ = writeln!(text, "# discovery by DNS: {ddr}");
    if config.listen.do53.is_empty() {
        text.push_str(
            "# listen.do53 is empty: clients that ask in clear use another server, which must publish the records of this one\n",
        );
    }
}

/// DHCPv4 (162), DHCPv6 (144) and router advertisements (144), as octets: every server accepts those.
fn options(text: &mut String, known: &Known) {
    let Ok(name) = dns::wire_name(&known.name) else { return };
    let parameters = dns::parameters(known.port, &[]);
    if !known.v4.is_empty() {
        let octets = instance(&name, &known.v4, &parameters, true);
        let body =
            [&u16::try_from(octets.len()).unwrap_or_default().to_be_bytes(), octets.as_slice()].concat();
        let _ = write!(
            text,
            "\n# Kea, DHCPv4: in \"option-data\" of \"Dhcp4\" or of a subnet\n{{ \"code\": 162, \"csv-format\": false, \"data\": \"{}\" }}\n\
             \n# dnsmasq, DHCPv4\ndhcp-option=162,{}\n\
             \n# systemd-networkd, DHCPv4: in [DHCPServer] of a .network file\nSendOption=162:string:{}\n",
            hex(&body, ""),
            hex(&body, ":"),
            escaped(&body),
        );
    }
    if !known.v6.is_empty() {
        let body = instance(&name, &known.v6, &parameters, false);
        let _ = write!(
            text,
            "\n# Kea, DHCPv6: in \"option-data\" of \"Dhcp6\" or of a subnet\n{{ \"code\": 144, \"csv-format\": false, \"data\": \"{}\" }}\n\
             \n# dnsmasq, DHCPv6\ndhcp-option=option6:144,{}\n",
            hex(&body, ""),
            hex(&body, ":"),
        );
    }
    text.push_str("\n# radvd: radvd.conf(5) says whether your release knows the option of RFC 9463; else use DHCP, or discovery by DNS\n");
    for address in &known.v6 {
        let _ = writeln!(text, "RDNSS {address} {{ }};");
    }
}

/// One resolver: priority 1, name, addresses, parameters. IPv4 counts addresses in one octet and names in one, IPv6 in two.
fn instance(name: &[u8], addresses: &[IpAddr], parameters: &[u8], is_v4: bool) -> Vec<u8> {
    let octets: Vec<u8> = addresses
        .iter()
        .flat_map(|address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        })
        .collect();
    let length = |count: usize| match is_v4 {
        true => vec![u8::try_from(count).unwrap_or_default()],
        false => u16::try_from(count).unwrap_or_default().to_be_bytes().to_vec(),
    };
    [&[0, 1][..], &length(name.len()), name, &length(octets.len()), &octets, parameters].concat()
}

/// Lines for clients that are configured by hand.
fn clients(text: &mut String, known: &Known) {
    let Known { name, pin, port, .. } = known;
    let _ = writeln!(
        text,
        "\n# Android 9 and newer: Settings, Network, Private DNS, \"provider hostname\"\n{name}"
    );
    if *port != 853 {
        let _ = writeln!(text, "# (Android uses port 853 only; this dotd has port {port})");
    }
    text.push_str("\n# systemd-resolved: /etc/systemd/resolved.conf\n[Resolve]\nDNSOverTLS=yes\n");
    let at = |address: &IpAddr, sign: &str| match address {
        IpAddr::V6(address) if sign == ":" => format!("[{address}]:{port}"),
        address => format!("{address}{sign}{port}"),
    };
    let all = || known.v4.iter().chain(&known.v6);
    let resolved: Vec<_> = all().map(|address| format!("{}#{name}", at(address, ":"))).collect();
    let _ = writeln!(text, "DNS={}", resolved.join(" "));
    text.push_str("\n# Unbound as a forwarder: unbound.conf\nserver:\n  tls-cert-bundle: /etc/ssl/certs/ca-certificates.crt\nforward-zone:\n  name: \".\"\n  forward-tls-upstream: yes\n");
    for address in all() {
        let _ = writeln!(text, "  forward-addr: {}#{name}", at(address, "@"));
    }
    text.push_str("\n# Stubby: stubby.yml as a whole; the pin alone is enough\nresolution_type: GETDNS_RESOLUTION_STUB\nlisten_addresses:\n  - 127.0.0.1\n  - 0::1\ndns_transport_list:\n  - GETDNS_TRANSPORT_TLS\ntls_authentication: GETDNS_AUTHENTICATION_REQUIRED\nupstream_recursive_servers:\n");
    for address in all() {
        let _ = write!(
            text,
            "  - address_data: {address}\n    tls_port: {port}\n    tls_auth_name: \"{name}\"\n    tls_pubkey_pinset:\n      - digest: \"sha256\"\n        value: {pin}\n"
        );
    }
}

/// A profile for iOS 14, macOS 11 and newer (Apple's com.apple.dnsSettings.managed).
fn profile(text: &mut String, known: &Known) {
    let Known { name, .. } = known;
    let addresses: String =
        known.v4.iter().chain(&known.v6).map(|address| format!("<string>{address}</string>")).collect();
    // The same name gives the same identifiers, so that a profile replaces the previous one.
    let digest = |of: &str| {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        of.bytes().for_each(|octet| hash = (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3));
        let (one, other) = (hash, hash.rotate_left(17) ^ 0x9e37_79b9_7f4a_7c15);
        format!(
            "{:08X}-{:04X}-4{:03X}-8{:03X}-{:012X}",
            one >> 32,
            one >> 16 & 0xffff,
            one & 0xfff,
            other >> 52,
            other & 0xffff_ffff_ffff
        )
    };
    let (inner, outer) = (digest(name), digest(&format!("profile of {name}")));
    let _ = write!(
        text,
        "\n# iOS, iPadOS, macOS: save what follows as dotd.mobileconfig, and open it there\n\
         <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\"><dict>\n\
         <key>PayloadType</key><string>Configuration</string><key>PayloadVersion</key><integer>1</integer>\n\
         <key>PayloadIdentifier</key><string>dotd.{name}</string><key>PayloadUUID</key><string>{outer}</string>\n\
         <key>PayloadDisplayName</key><string>DNS over TLS by {name}</string>\n\
         <key>PayloadContent</key><array><dict>\n\
         <key>PayloadType</key><string>com.apple.dnsSettings.managed</string><key>PayloadVersion</key><integer>1</integer>\n\
         <key>PayloadIdentifier</key><string>dotd.{name}.dns</string><key>PayloadUUID</key><string>{inner}</string>\n\
         <key>DNSSettings</key><dict>\n\
         <key>DNSProtocol</key><string>TLS</string><key>ServerName</key><string>{name}</string>\n\
         <key>ServerAddresses</key><array>{addresses}</array>\n\
         </dict></dict></array></dict></plist>\n"
    );
}

fn list(known: &Known, between: &str) -> String {
    known.v4.iter().chain(&known.v6).map(IpAddr::to_string).collect::<Vec<_>>().join(between)
}

fn hex(octets: &[u8], between: &str) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(between)
}

/// The escapes of systemd for octets in a string.
fn escaped(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("\\x{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the options are those of RFC 9463: lengths, name, addresses, parameters; for IPv4 after the length of
    /// the instance.
    /// Method: octets written by hand, and every text for one resolver. Covers: C-514
    #[test]
    fn options_are_those_of_the_rfc() {
        let known = Known {
            name: "dns.example".into(),
            pin: "PIN".into(),
            v4: vec!["192.0.2.1".parse().unwrap()],
            v6: vec!["2001:db8::1".parse().unwrap()],
            port: 853,
            covers: true,
        };
        let mut text = String::new();
        options(&mut text, &known);
        let (name, parameters) =
            ("03646e73076578616d706c6500", "0001000403646f740003000203".to_owned() + "55");
        let v4 = format!("00010d{name}04c0000201{parameters}");
        let length = v4.len() / 2;
        assert!(
            text.contains(&format!("\"code\": 162, \"csv-format\": false, \"data\": \"{length:04x}{v4}\"")),
            "{text}"
        );
        let v6 = format!("0001000d{name}001020010db8000000000000000000000001{parameters}");
        assert!(
            text.contains(&format!("\"code\": 144, \"csv-format\": false, \"data\": \"{v6}\"")),
            "{text}"
        );
        assert!(
            text.contains("dhcp-option=162,00:2") && text.contains("dhcp-option=option6:144,00:01:00:0d:03"),
            "{text}"
        );
        assert!(text.contains("SendOption=162:string:\\x00\\x2"), "{text}");
        clients(&mut text, &known);
        profile(&mut text, &known);
        for part in [
            "DNS=192.0.2.1:853#dns.example [2001:db8::1]:853#dns.example",
            "forward-addr: 2001:db8::1@853#dns.example",
            "value: PIN",
            "<key>ServerName</key><string>dns.example</string>",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
