//! The real authority: polkit on the system bus.

use crate::{
    Answer, Authority, Check, Refusal,
    authority::{Answering, Details},
};
use banger_model::Uid;
use zbus::{Connection, fdo, proxy::CacheProperties};
use zbus_polkit::policykit1::{AuthorityProxy, AuthorizationResult, CheckAuthorizationFlags, Subject};

/// The most characters of a detail that a prompt shows.
const LONGEST_DETAIL: usize = 128;

/// Polkit, asked over a bus. Without polkit on that bus root is allowed everything and nobody else anything
/// that needs polkit's yes.
#[derive(Debug, Clone)]
pub struct PolkitAuthority {
    connection: Connection,
}

impl PolkitAuthority {
    /// Asks over `connection`, the one on which the callers' bus names are.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    async fn ask(&self, check: &Check) -> zbus::Result<AuthorizationResult> {
        let subject = subject(&check.caller.bus_name)?;
        let flags = match check.interactive {
            true => CheckAuthorizationFlags::ALLOW_USER_INTERACTION,
            false => CheckAuthorizationFlags::empty(),
        };
        let details = prompt_details(check);
        let details = details.iter().map(|(key, value)| (*key, value.as_str())).collect();
        // Nothing of polkit's properties is needed, so none is fetched or kept.
        let proxy =
            AuthorityProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await?;
        proxy.check_authorization(&subject, check.action.id(), &details, flags, "").await
    }
}

impl Authority for PolkitAuthority {
    fn check<'a>(&'a self, check: &'a Check) -> Answering<'a> {
        Box::pin(async { answer(check, self.ask(check).await) })
    }
}

/// What polkit's reply means.
fn answer(check: &Check, reply: zbus::Result<AuthorizationResult>) -> Answer {
    let action = check.action;
    match reply {
        Ok(result) if result.is_authorized => Ok(()),
        Ok(result) if result.details.get("polkit.dismissed").is_some_and(|text| !text.is_empty()) => {
            Err(Refusal::Dismissed { action })
        }
        Ok(result) if result.is_challenge && check.interactive => Err(Refusal::NoAgent { action }),
        Ok(result) if result.is_challenge => Err(Refusal::InteractionRequired { action }),
        Ok(_) => Err(Refusal::Denied { action }),
        Err(error) if is_absence(&error) && check.caller.uid == Uid::ROOT => Ok(()),
        Err(error) if is_absence(&error) => {
            Err(Refusal::Unavailable { action, why: "polkit is not on the system bus".into() })
        }
        Err(error) => Err(Refusal::Unavailable { action, why: format!("polkit answers {error}") }),
    }
}

/// Whether the bus says that there is no polkit, and none that it could start.
fn is_absence(error: &zbus::Error) -> bool {
    use fdo::Error::{
        NameHasNoOwner, ServiceUnknown, SpawnExecFailed, SpawnFileInvalid, SpawnServiceNotFound,
    };
    let zbus::Error::FDO(error) = error else { return false };
    matches!(
        **error,
        ServiceUnknown(_)
            | NameHasNoOwner(_)
            | SpawnServiceNotFound(_)
            | SpawnExecFailed(_)
            | SpawnFileInvalid(_)
    )
}

/// The caller as polkit takes it: `system-bus-name`, so that the bus and not the caller says who it is.
fn subject(bus_name: &str) -> zbus::Result<Subject> {
    let message = zbus::Message::method_call("/", "Call").sender(bus_name).build(&())?;
    Subject::new_for_message_header(&message.header())
        .map_err(|error| zbus::Error::Failure(format!("no subject for {bus_name}: {error}")))
}

/// The details for polkit: those that the action's prompt shows, and the prompt itself when all are known.
fn prompt_details(check: &Check) -> Details {
    let mut details: Details = check
        .action
        .keys()
        .filter_map(|key| check.details.get(key).map(|value| (key, printable(value))))
        .collect();
    if check.action.keys().all(|key| details.contains_key(key)) {
        details.insert("polkit.message", check.action.prompt().to_owned());
    }
    details
}

/// `value` as a prompt may show it: on one line, and short.
fn printable(value: &str) -> String {
    value.chars().filter(|c| !c.is_control()).take(LONGEST_DETAIL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActionId, Caller};
    use std::collections::HashMap;

    fn check(uid: u32, interactive: bool) -> Check {
        let caller = Caller { bus_name: ":1.42".into(), uid: Uid(uid) };
        Check { action: ActionId::NetworkPublish, caller, interactive, details: Details::new() }
    }

    fn result(is_authorized: bool, is_challenge: bool, dismissed: bool) -> zbus::Result<AuthorizationResult> {
        let details = match dismissed {
            true => HashMap::from([("polkit.dismissed".to_owned(), "true".to_owned())]),
            false => HashMap::new(),
        };
        Ok(AuthorizationResult { is_authorized, is_challenge, details })
    }

    #[test]
    fn polkits_answers_are_told_apart() {
        let action = ActionId::NetworkPublish;
        for (interactive, reply, expected) in [
            (true, result(true, false, false), Ok(())),
            (false, result(false, false, false), Err(Refusal::Denied { action })),
            (true, result(false, false, false), Err(Refusal::Denied { action })),
            (false, result(false, true, false), Err(Refusal::InteractionRequired { action })),
            (true, result(false, true, false), Err(Refusal::NoAgent { action })),
            (true, result(false, false, true), Err(Refusal::Dismissed { action })),
            (true, result(false, true, true), Err(Refusal::Dismissed { action })),
        ] {
            assert_eq!(answer(&check(1000, interactive), reply), expected);
        }
    }

    #[test]
    fn without_polkit_root_alone_is_allowed() {
        let absent = || {
            [
                fdo::Error::ServiceUnknown("x".into()),
                fdo::Error::NameHasNoOwner("x".into()),
                fdo::Error::SpawnServiceNotFound("x".into()),
            ]
            .map(zbus::Error::from)
        };
        for error in absent() {
            assert_eq!(answer(&check(0, false), Err(error)), Ok(()));
        }
        for error in absent() {
            let refusal = answer(&check(1000, true), Err(error)).unwrap_err();
            assert!(matches!(refusal, Refusal::Unavailable { .. }), "{refusal}");
        }
    }

    #[test]
    fn a_polkit_that_fails_allows_nobody() {
        for uid in [0, 1000] {
            for error in [fdo::Error::Failed("x".into()), fdo::Error::NoReply("x".into())] {
                let refusal = answer(&check(uid, false), Err(error.into())).unwrap_err();
                assert!(matches!(refusal, Refusal::Unavailable { .. }), "{refusal}");
            }
        }
    }

    #[test]
    fn the_subject_is_the_bus_name() {
        assert_eq!(subject(":1.42").unwrap().kind(), "system-bus-name");
        for bad in ["", "org.example.Name", ":", "1.42"] {
            assert!(subject(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_prompt_shows_its_details_or_none() {
        let mut check = check(1000, true);
        check.details.insert("vm", format!("web\n{}", "x".repeat(500)));
        check.details.insert("polkit.message", "Please type your password".into());
        let details = prompt_details(&check);
        assert_eq!(details.keys().collect::<Vec<_>>(), [&"vm"]);
        assert_eq!(details["vm"].len(), LONGEST_DETAIL);
        assert!(details["vm"].starts_with("webx"));
        check.details.insert("port", "8080".into());
        assert_eq!(prompt_details(&check)["polkit.message"], ActionId::NetworkPublish.prompt());
    }
}
