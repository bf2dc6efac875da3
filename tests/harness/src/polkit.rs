//! polkit in the private host: the real daemon and policy, and a rule that stands in for logind.
//!
//! Without logind nobody is in an active local session, so a rule gives some users the answer that polkit
//! gives to an active session. Everybody else gets the policy's answer for a remote one.

use crate::{
    error::{Doing, Result},
    mounts,
};
use std::{fs, os::unix::fs::chown, path::Path};

/// Where the rule is.
const RULE: &str = "/etc/polkit-1/rules.d/10-banger-session.rules";

/// Writes the rule for `users`, from the actions in `policy` that an active session is simply allowed.
///
/// # Errors
/// [`crate::HarnessError::Io`] when the policy cannot be read or the rule cannot be written.
pub fn add_rule(policy: &Path, users: &[&str]) -> Result<()> {
    let text = fs::read_to_string(policy).doing(format!("read {}", policy.display()))?;
    mounts::write(Path::new(RULE), &rule(&allowed_when_active(&text), users), 0o644)?;
    // The folder may be closed to all but polkitd, who owns it; the file is readable all the same.
    let owner = fs::metadata("/etc/polkit-1/rules.d").doing("look at polkit's rules")?;
    chown(RULE, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None).doing("give the rule to polkitd")
}

/// The ids of the actions whose default for an active session is `yes`.
fn allowed_when_active(policy: &str) -> Vec<&str> {
    policy
        .split("<action ")
        .skip(1)
        .filter(|action| action.contains("<allow_active>yes</allow_active>"))
        .filter_map(|action| action.split('"').nth(1))
        .collect()
}

fn rule(actions: &[&str], users: &[&str]) -> String {
    // A JSON array of strings is a JavaScript array too.
    let (actions, users) = (serde_json::json!(actions), serde_json::json!(users));
    format!(
        "polkit.addRule(function(action, subject) {{\n    if ({actions}.indexOf(action.id) >= 0 && \
         {users}.indexOf(subject.user) >= 0) {{\n        return polkit.Result.YES;\n    }}\n}});\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"<policyconfig>
        <action id="org.example.run"><defaults><allow_active>yes</allow_active></defaults></action>
        <action id="org.example.admin"><defaults><allow_active>auth_admin_keep</allow_active></defaults></action>
    </policyconfig>"#;

    #[test]
    fn only_what_an_active_session_may_do_is_in_the_rule() {
        assert_eq!(allowed_when_active(POLICY), ["org.example.run"]);
        let rule = rule(&allowed_when_active(POLICY), &["alice"]);
        assert!(rule.contains(r#"["org.example.run"].indexOf(action.id) >= 0"#), "{rule}");
        assert!(rule.contains(r#"["alice"].indexOf(subject.user) >= 0"#), "{rule}");
    }
}
