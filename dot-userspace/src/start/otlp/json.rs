//! Spans in OTLP's JSON form.
//!
//! Before: `otlp::spans` has whole spans. After: a collector reads them at its HTTP endpoint.
//! Never: holds anything.
//!
//! Source: OTLP 1.5, "JSON Protobuf Encoding": IDs in hexadecimal, 64-bit numbers as strings.

use serde_json::{Value as Json, json};

use super::spans::{Span, Value};

/// One request with these spans.
pub(super) fn request(spans: &[Span], service_name: &str) -> Vec<u8> {
    let resource = attributes(&[
        ("service.name", Value::Text(service_name.to_owned())),
        ("service.version", Value::Text(env!("CARGO_PKG_VERSION").to_owned())),
    ]);
    let spans: Vec<_> = spans.iter().map(span).collect();
    let scope = json!({ "name": "dotd", "version": env!("CARGO_PKG_VERSION") });
    let whole = json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }] });
    whole.to_string().into_bytes()
}

fn span(span: &Span) -> Json {
    let events = span.events.iter().map(|(at_us, name, more)| {
        json!({ "timeUnixNano": nanoseconds(*at_us), "name": name, "attributes": attributes(more) })
    });
    let links = span.link.iter().map(
        |link| json!({ "traceId": format!("{:032x}", link.trace), "spanId": format!("{:016x}", link.span) }),
    );
    json!({
        "traceId": format!("{:032x}", span.ids.trace),
        "spanId": format!("{:016x}", span.ids.span),
        "parentSpanId": span.parent.map(|parent| format!("{parent:016x}")).unwrap_or_default(),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": nanoseconds(span.start_us),
        "endTimeUnixNano": nanoseconds(span.end_us),
        "attributes": attributes(&span.attributes),
        "events": events.collect::<Vec<_>>(),
        "droppedEventsCount": span.events_dropped,
        "links": links.collect::<Vec<_>>(),
        // STATUS_CODE_ERROR, STATUS_CODE_UNSET.
        "status": { "code": if span.is_error { 2 } else { 0 } },
    })
}

fn attributes(attributes: &[(&str, Value)]) -> Vec<Json> {
    let value = |value: &Value| match value {
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::Flag(flag) => json!({ "boolValue": flag }),
    };
    attributes.iter().map(|(name, one)| json!({ "key": name, "value": value(one) })).collect()
}

fn nanoseconds(us: u64) -> String {
    us.saturating_mul(1000).to_string()
}
