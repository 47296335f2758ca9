//! An error with its causes, in one line.
//!
//! Before: something failed. After: one line says it, for a log or a terminal.
//! Never: says a cause twice.

/// The error and its causes in one line; text of a cause that another one already contains appears once.
#[must_use]
pub fn in_a_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a line contains each cause once, even if an error's own text contains its cause. Method: a missing file.
    #[test]
    fn a_cause_is_said_once() {
        let missing = crate::tls::client_verifier("/nowhere/ca.pem".as_ref()).expect_err("it is not there");
        let once = missing.to_string();
        let error =
            anyhow::Error::new(missing).context(format!("tls.client_ca: {once}")).context("not started");
        assert_eq!(in_a_line(&error), format!("not started: tls.client_ca: {once}"));
    }
}
