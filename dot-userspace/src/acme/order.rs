//! One order: from the names to a certificate in the folder.
//!
//! Before: `client` has an account, and the time has come. After: the folder has the next certificate, or one line says which step
//! failed, and the old one is still there.
//! Never: tells the authority that a proof is ready before it is; leaves a proof behind.
//!
//! Source: RFC 8555 §7.4 and §7.5, RFC 9773 §5 (replaces).

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};

use super::{
    errand::Errand,
    folder::Folder,
    pace::Life,
    proof::Proof,
    wanted::Wanted,
    words::{Failure, clean, failure},
};
use crate::{config::AcmeChallenge, tls};

/// How the state of an order is asked for.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// Gets a certificate. `replaced`: the one that it takes the place of, if the authority knows renewal information.
pub(super) async fn obtain(
    (errand, folder): (&Errand, &Folder),
    account: &Account,
    proof: &mut Proof<'_>,
    replaced: Option<CertificateIdentifier<'static>>,
) -> Result<Life, Failure> {
    let names = &errand.acme.names;
    let identifiers: Vec<_> = names.iter().map(|name| identifier(name)).collect();
    let mut order = begin(errand, account, &identifiers, replaced).await?;
    let wanted = wanted(errand, &mut order).await?;
    if !wanted.is_empty() {
        let proved = match proof.present(&wanted).await {
            Ok(()) => prove(errand, &mut order, &wanted).await,
            Err(failure) => Err(failure),
        };
        proof.withdraw().await;
        proved?;
    }
    let kept = if errand.acme.reuse_key { folder.key() } else { None };
    let requested = tls::request(names, kept.as_ref().map(|text| text.as_str()));
    let requested = requested.map_err(|error| Failure::new(format!("no request for {names:?}: {error}")))?;
    let wait = |error: &Error| failure("the certificate is not issued", error);
    order.finalize_csr(&requested.request).await.map_err(|error| wait(&error))?;
    let chain = order.poll_certificate(&POLLS).await.map_err(|error| wait(&error))?;
    folder.replace(&requested.key, &chain, names)
}

fn identifier(name: &str) -> Identifier {
    name.parse().map_or_else(|_| Identifier::Dns(name.to_ascii_lowercase()), Identifier::Ip)
}

async fn begin(
    errand: &Errand,
    account: &Account,
    identifiers: &[Identifier],
    replaced: Option<CertificateIdentifier<'static>>,
) -> Result<Order, Failure> {
    let profile = errand.acme.profile.as_str();
    let wish = |replaced: Option<CertificateIdentifier<'static>>| {
        let mut wish = NewOrder::new(identifiers);
        if !profile.is_empty() {
            wish = wish.profile(profile);
        }
        match replaced {
            Some(replaced) => wish.replaces(replaced),
            None => wish,
        }
    };
    if !profile.is_empty() && !account.profiles().any(|offered| offered.name == profile) {
        let offered: Vec<_> = account.profiles().map(|offered| offered.name.to_owned()).collect();
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        return Err(Failure::new(format!(
            "acme.profile: the authority has no profile \"{profile}\"; it offers: {offered}"
        )));
    }
    let refused = |error: &Error| failure("the order is refused", error);
    if replaced.is_some() {
        match account.new_order(&wish(replaced)).await {
            Ok(order) => return Ok(order),
            // Another order has replaced it, or the authority does not know it: RFC 9773 §5 leaves the field out then.
            Err(error) if is_about_replaces(&error) => {
                tracing::debug!("acme: an order without `replaces`: {}", clean(&error.to_string()));
            }
            Err(error) => return Err(refused(&error)),
        }
    }
    account.new_order(&wish(None)).await.map_err(|error| refused(&error))
}

/// Whether an order may be accepted without `replaces`. A limit, a nonce or a lost connection has nothing to do with it: to ask again at
/// once would count as another order.
fn is_about_replaces(error: &Error) -> bool {
    let Error::Api(problem) = error else { return false };
    let kind = problem.r#type.as_deref().unwrap_or_default();
    !["rateLimited", "badNonce", "accountDoesNotExist", "serverInternal"]
        .iter()
        .any(|other| kind.ends_with(other))
}

/// The proofs that the authority wants. Names that were proved a short time ago need none.
async fn wanted(errand: &Errand, order: &mut Order) -> Result<Vec<Wanted>, Failure> {
    let (kind, label) = kind(errand);
    let mut wanted = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization =
            authorization.map_err(|error| failure("a name's state is not known", &error))?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(Failure::new(format!("the authority's state for a name is {status:?}"))),
        }
        let offered: Vec<_> =
            authorization.challenges.iter().map(|one| format!("{:?}", one.r#type)).collect();
        let name = bare(authorization.identifier().identifier);
        let challenge = authorization.challenge(kind.clone()).ok_or_else(|| {
            Failure::new(format!("{name}: the authority does not offer {label}, but {}", offered.join(", ")))
        })?;
        let text = challenge.key_authorization();
        wanted.push(Wanted {
            name,
            token: challenge.token.clone(),
            text: text.as_str().to_owned(),
            record: text.dns_value(),
        });
    }
    Ok(wanted)
}

/// Tells the authority that the proofs are there, and waits for its verdict.
async fn prove(errand: &Errand, order: &mut Order, wanted: &[Wanted]) -> Result<(), Failure> {
    let (kind, label) = kind(errand);
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization =
            authorization.map_err(|error| failure("a name's state is not known", &error))?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        if let Some(mut challenge) = authorization.challenge(kind.clone())
            && wanted.iter().any(|one| one.token == challenge.token)
        {
            challenge.set_ready().await.map_err(|error| failure(&format!("{label} is refused"), &error))?;
        }
    }
    match order.poll_ready(&POLLS).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) | Err(Error::Api(_)) => Err(verdict(order, label).await),
        Err(error) => Err(failure(&format!("{label} has no verdict"), &error)),
    }
}

/// Why a name was not proved, as its challenge says.
async fn verdict(order: &mut Order, label: &str) -> Failure {
    let of_order = order.state().error.clone().map(Error::Api);
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = bare(authorization.identifier().identifier);
        if let Some(problem) = authorization.challenges.iter().find_map(|challenge| challenge.error.clone()) {
            return failure(&format!("{label} failed for {name}"), &Error::Api(problem));
        }
    }
    match of_order {
        Some(error) => failure(&format!("{label} failed"), &error),
        None => Failure::new(format!("{label} failed, and the authority does not say why")),
    }
}

fn kind(errand: &Errand) -> (ChallengeType, &'static str) {
    let challenge = errand.acme.challenge;
    let kind = match challenge {
        AcmeChallenge::Http => ChallengeType::Http01,
        AcmeChallenge::Dns => ChallengeType::Dns01,
    };
    (kind, challenge.label())
}

fn bare(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) => name.clone(),
        Identifier::Ip(address) => address.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an order is sent again without `replaces` only if the authority may have refused it for that. Method: problems of both kinds,
    /// and a lost connection. Covers: C-759
    #[test]
    fn a_limit_is_not_asked_again() {
        let problem = |kind: &str| {
            let text = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}"}}"#);
            Error::Api(serde_json::from_str(&text).unwrap())
        };
        for kind in ["alreadyReplaced", "malformed", "unauthorized", "orderNotReady"] {
            assert!(is_about_replaces(&problem(kind)), "{kind}");
        }
        for kind in ["rateLimited", "badNonce", "accountDoesNotExist", "serverInternal"] {
            assert!(!is_about_replaces(&problem(kind)), "{kind}");
        }
        assert!(!is_about_replaces(&Error::Str("no response")));
    }
}
