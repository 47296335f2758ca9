//! Says which rule decides about a name, and which were only counted: what `dotd policy test` shows.
//!
//! Before: an operator's question. After: the rule, with its zone, file and line.
//! Never: asks a backend: the operator says where an answer would lead.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    rules::Action,
    screen::{Answered, Judged, Ruling, Screen},
};
use crate::dns::{self, Labels, Made, ResponseCode, TYPE_A, TYPE_AAAA, TYPE_CNAME};

/// What an operator asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The name.
    pub name: String,
    /// The type; absent: A.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub qtype: Option<String>,
    /// Address of the client; absent: one that no rule is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// What a backend would answer: addresses and names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<String>,
}

/// A rule that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSeen {
    /// Its zone.
    pub zone: String,
    /// Its file.
    pub file: String,
    /// The line there.
    pub line: u32,
    /// By what it was found.
    pub found: String,
    /// What it does.
    pub action: String,
    /// The records that a client would get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<String>,
}

/// Which rules there are for a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// As asked.
    #[serde(flatten)]
    pub asked: Question,
    /// The rule that decides; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decides: Option<RuleSeen>,
    /// Rules of zones that are only counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<RuleSeen>,
}

impl Screen {
    /// Which rule decides.
    ///
    /// # Errors
    /// The name is not a domain name, or the type no record type.
    pub fn explain(&self, asked: &Question) -> Result<Explained, String> {
        let name = dns::wire_name(&asked.name)?;
        let qtype = asked.qtype.as_deref().map_or(Ok(TYPE_A), dns::record_type)?;
        let labels = Labels::read(&name, 0).ok_or_else(|| format!("{}: not a domain name", asked.name))?;
        // An address of no client: 0.0.0.0.
        let client = asked.client.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let mut counted = Vec::new();
        let mut decides = None;
        match self.judge(&labels, client, false, |ruling| counted.push(seen(ruling, qtype))) {
            Judged::Ruling(ruling) => decides = Some(seen(&ruling, qtype)),
            Judged::Ask(screening) if !asked.answer.is_empty() => {
                let (response, question_end) = response_to(&name, qtype, &asked.answer)?;
                let answered = Answered { response: &response, question_end, dnssec_ok: false, screening };
                let found = self.judge_answer(answered, client, |ruling| counted.push(seen(ruling, qtype)));
                decides = found.map(|found| seen(&found.ruling, qtype));
            }
            Judged::Ask(_) => {}
        }
        Ok(Explained { asked: asked.clone(), decides, counted })
    }
}

fn seen(ruling: &Ruling<'_>, qtype: u16) -> RuleSeen {
    let config = ruling.zone.config();
    let records = match ruling.action {
        Action::Records(records) => {
            let asked = records.all().filter(|(rtype, ..)| *rtype == qtype);
            asked.map(|(rtype, ttl, rdata)| format!("{ttl} {}", dns::record_text(rtype, rdata))).collect()
        }
        _ => Vec::new(),
    };
    RuleSeen {
        zone: config.name.clone(),
        file: config.file.display().to_string(),
        line: ruling.line,
        found: ruling.found.label().to_owned(),
        action: ruling.action.text(),
        records,
    }
}

/// A response to a question for `name`, with aliases and addresses as the words say; and where its question ends.
fn response_to(name: &[u8], qtype: u16, words: &[String]) -> Result<(Vec<u8>, usize), String> {
    let front = [&[0; dns::HEADER_OCTETS][..], name, &qtype.to_be_bytes(), &[0, 1]].concat();
    let question_end = front.len();
    let (mut out, mut owner) = (Vec::new(), name.to_vec());
    let mut made = Made::begin(&front, 0, &mut out);
    for word in words {
        match word.parse() {
            Ok(IpAddr::V4(address)) => made.answer(Some(&owner), TYPE_A, 0, &address.octets()),
            Ok(IpAddr::V6(address)) => made.answer(Some(&owner), TYPE_AAAA, 0, &address.octets()),
            Err(_) => {
                let target = dns::wire_name(word)?;
                made.answer(Some(&owner), TYPE_CNAME, 0, &target);
                owner = target.into();
            }
        }
    }
    made.finish(ResponseCode::NoError, None, false);
    Ok((out, question_end))
}
