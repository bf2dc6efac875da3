//! `banger doctor`.

use crate::{
    bus,
    cli::FormatArgs,
    context::Context,
    error::Error,
    output::{self, Format},
};
use banger_dbus::dict;
use serde::Serialize;

/// Exit code when something does not work.
const UNWELL: u8 = 1;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    id: String,
    severity: String,
    subject: String,
    found: String,
    remedy: String,
}

/// Does it. The code is 1 when something does not work.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn doctor(context: &mut Context, format: FormatArgs) -> Result<u8, Error> {
    let manager = context.manager().await?;
    let rows = context.signals.guard(manager.check(&bus::none())).await?;
    let mut findings = Vec::new();
    for (id, severity, subject, remedy, mut details) in rows {
        let found = dict::take(&mut details, "found")?.unwrap_or_default();
        findings.push(Finding { id, severity, subject, found, remedy });
    }
    match format.format {
        Format::Json => output::print_json(&findings)?,
        Format::Table => output::print(&told(&findings))?,
    }
    Ok(if findings.iter().any(|finding| finding.severity == "error") { UNWELL } else { 0 })
}

/// A line for each, and one more for what to do.
fn told(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.severity.len()).max().unwrap_or(0);
    let plain =
        |text: &str| -> String { text.chars().map(|c| if c.is_control() { '?' } else { c }).collect() };
    let mut text = String::new();
    for Finding { severity, subject, found, remedy, .. } in findings {
        text.push_str(&format!("{severity:width$}  {}: {}\n", plain(subject), plain(found)));
        if !remedy.is_empty() {
            text.push_str(&format!("{:width$}  -> {}\n", "", plain(remedy)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below_what_was_found() {
        let finding = |severity: &str, remedy: &str| Finding {
            id: "x".into(),
            severity: severity.into(),
            subject: "thing".into(),
            found: "as it\u{1b} is".into(),
            remedy: remedy.into(),
        };
        let text = told(&[finding("ok", ""), finding("warning", "do this")]);
        assert_eq!(text, "ok       thing: as it? is\nwarning  thing: as it? is\n         -> do this\n");
    }
}
