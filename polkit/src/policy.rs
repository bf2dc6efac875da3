//! The policy file, written from the table of actions.

use crate::{ActionId, Implicit};

/// The user whom polkit trusts to ask with details, as root is trusted: bangerd's.
const OWNER: &str = "unix-user:banger";

/// The content of `org.banger.manager.policy`, polkit(8).
pub fn policy_xml() -> String {
    let mut xml = String::from(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD polkit Policy Configuration 1.0//EN"
  "http://www.freedesktop.org/software/polkit/policyconfig-1.dtd">
<!-- Generated from the table in polkit/src/action.rs; a test holds the two equal. -->
<policyconfig>
  <vendor>banger</vendor>
"#,
    );
    for action in ActionId::ALL {
        let (description, message) = (action.description(), action.message());
        let (others, active) = (Implicit::AuthAdmin.as_str(), action.active().as_str());
        xml += &format!(
            r#"
  <action id="{action}">
    <description>{description}</description>
    <message>{message}</message>
    <defaults>
      <allow_any>{others}</allow_any>
      <allow_inactive>{others}</allow_inactive>
      <allow_active>{active}</allow_active>
    </defaults>
    <annotate key="org.freedesktop.policykit.owner">{OWNER}</annotate>
  </action>
"#
        );
    }
    xml += "</policyconfig>\n";
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set to anything, it makes the test write the file instead of comparing.
    const UPDATE: &str = "BANGER_UPDATE";

    #[test]
    fn the_policy_file_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/org.banger.manager.policy");
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(path, policy_xml()).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap();
        assert!(file == policy_xml(), "{path} is not what the table says: run this test with {UPDATE}=1");
    }

    /// The elements of the file in their order, each with its depth.
    fn elements(xml: &str) -> Vec<(usize, String)> {
        let (mut depth, mut found) = (0, Vec::new());
        for tag in xml.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag) {
            if tag.starts_with(['?', '!']) {
                continue;
            } else if let Some(name) = tag.strip_prefix('/') {
                depth -= 1;
                let open = found.iter().rev().find(|(at, _)| *at == depth);
                assert_eq!(open.map(|(_, name): &(usize, String)| name.as_str()), Some(name));
            } else {
                found.push((depth, tag.split(' ').next().unwrap().to_owned()));
                depth += 1;
            }
        }
        assert_eq!(depth, 0);
        found
    }

    /// policyconfig-1.dtd: (vendor?, vendor_url?, icon_name?, action+), and each action
    /// (description+, message+, icon_name?, defaults, annotate*).
    #[test]
    fn the_structure_is_the_dtds() {
        let mut expected = vec![(0, "policyconfig"), (1, "vendor")];
        for _ in ActionId::ALL {
            expected.extend([
                (1, "action"),
                (2, "description"),
                (2, "message"),
                (2, "defaults"),
                (3, "allow_any"),
                (3, "allow_inactive"),
                (3, "allow_active"),
                (2, "annotate"),
            ]);
        }
        let found = elements(&policy_xml());
        assert_eq!(found.iter().map(|(depth, name)| (*depth, name.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_text_needs_escaping() {
        for action in ActionId::ALL {
            for text in [action.id(), action.description(), action.message()] {
                assert!(!text.contains(['<', '>', '&', '"']), "{text}");
            }
        }
    }
}
