//! Finds the rule that decides about a name, and those that only count, for `dotd policy test`.
//!
//! Before: an operator's question. After: the rule, with its zone, file and line.
//! Never: asks a backend: the operator gives the names and addresses of an answer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    rules::Action,
    screen::{Answered, Judged, Ruling, Screen},
};
use crate::dns::{self, Labels, Made, ResponseCode, TYPE_A, TYPE_AAAA, TYPE_CNAME};

/// The question of an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The name.
    pub name: String,
    /// The type; absent: A.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub qtype: Option<String>,
    /// Address of the client; absent: one without any rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Name of the client's tenant; absent: it belongs to none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The answer of a backend: addresses and names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<String>,
}

/// A rule that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSeen {
    /// Its zone.
    pub zone: String,
    /// Its file.
    pub file: String,
    /// The line in it.
    pub line: u32,
    /// The trigger by which it was found.
    pub found: String,
    /// Its action.
    pub action: String,
    /// The records that a client would get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<String>,
}

/// The rules for a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The question.
    #[serde(flatten)]
    pub asked: Question,
    /// The rule that decides; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decides: Option<RuleSeen>,
    /// Matching rules of zones that only count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<RuleSeen>,
}

impl Screen {
    /// Finds the rule that decides.
    ///
    /// # Errors
    /// The name is not a domain name, or the type is not a record type.
    pub fn explain(&self, asked: &Question) -> Result<Explained, String> {
        let name = dns::wire_name(&asked.name)?;
        let qtype = asked.qtype.as_deref().map_or(Ok(TYPE_A), dns::record_type)?;
        let labels = Labels::read(&name, 0).ok_or_else(|| format!("{}: not a domain name", asked.name))?;
        // Not the address of any client: 0.0.0.0.
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
        line: ruling.line(),
        found: ruling.found.label().to_owned(),
        action: ruling.action.text(),
        records,
    }
}

/// A response to a question for `name`, with the given aliases and addresses; and the end of its question.
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
