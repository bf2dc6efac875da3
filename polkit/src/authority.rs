//! Who is asked, what, and what the answer can be.

use crate::{ActionId, Operation, Ownership, Requirement};
use banger_model::Uid;
use std::{collections::BTreeMap, future::Future, pin::Pin};

/// Who asks. Both come from the bus, never from an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The unique name on the bus, such as `:1.42`; polkit finds process and session by it.
    pub bus_name: String,
    /// The user that the bus vouches for.
    pub uid: Uid,
}

/// What a prompt shows: the values for [`ActionId::keys`].
pub type Details = BTreeMap<&'static str, String>;

/// One question to an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What the caller wants to be allowed.
    pub action: ActionId,
    /// Who wants it.
    pub caller: Caller,
    /// Whether the call allows a prompt (the message's ALLOW_INTERACTIVE_AUTHORIZATION flag).
    pub interactive: bool,
    /// What a prompt shows.
    pub details: Details,
}

/// What an authority answers: nothing when the action is allowed.
pub type Answer = Result<(), Refusal>;

/// Why something is not allowed. Each text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Polkit says no, or the authentication failed.
    #[error(
        "not allowed: polkit denies {action}; an administrator can allow it with a rule in \
         /etc/polkit-1/rules.d"
    )]
    Denied {
        /// The action.
        action: ActionId,
    },
    /// It would be allowed after a prompt, which the call did not allow.
    #[error(
        "{action} needs authentication, and the call allows no prompt; call again with interactive \
         authorization allowed (busctl: --allow-interactive-authorization=yes) or as an administrator"
    )]
    InteractionRequired {
        /// The action.
        action: ActionId,
    },
    /// It would be allowed after a prompt, but nothing in the caller's session can show one.
    #[error(
        "{action} needs authentication, and no authentication agent runs in this session; start one \
         (pkttyagent --process $$ in a terminal), call from a desktop session, or call as an administrator"
    )]
    NoAgent {
        /// The action.
        action: ActionId,
    },
    /// The prompt was closed.
    #[error("{action} needs authentication, and the prompt was dismissed; call again to be asked again")]
    Dismissed {
        /// The action.
        action: ActionId,
    },
    /// Polkit gives no answer.
    #[error("{action} cannot be checked: {why}; install and start polkit, or call as root")]
    Unavailable {
        /// The action.
        action: ActionId,
        /// What happened instead.
        why: String,
    },
    /// For this caller, the object is not there.
    #[error("there is no such object")]
    NotFound,
}

/// What [`Authority::check`] returns.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Answers whether a caller may do what an action covers.
pub trait Authority: Send + Sync {
    /// Asks. It may take as long as somebody needs for a password, so no lock is held meanwhile.
    fn check<'a>(&'a self, check: &'a Check) -> Answering<'a>;
}

/// Whether `caller` may do `operation` on an object of that ownership.
///
/// # Errors
/// A [`Refusal`], [`Refusal::NotFound`] where the table says that the object is not there for this caller.
pub async fn authorize(
    authority: &dyn Authority,
    operation: Operation,
    ownership: Ownership,
    caller: &Caller,
    interactive: bool,
    details: Details,
) -> Answer {
    match operation.requirement(ownership) {
        Requirement::Allowed => Ok(()),
        Requirement::NotFound => Err(Refusal::NotFound),
        Requirement::Action(action) => {
            authority.check(&Check { action, caller: caller.clone(), interactive, details }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScriptedAuthority;

    #[tokio::test]
    async fn the_authority_is_asked_only_where_the_table_says_so() {
        let authority = ScriptedAuthority::new();
        let caller = Caller { bus_name: ":1.7".into(), uid: Uid(1000) };
        let ask = async |operation, ownership| {
            authorize(&authority, operation, ownership, &caller, true, Details::new()).await
        };
        assert_eq!(ask(Operation::ManageVm, Ownership::Own).await, Ok(()));
        assert_eq!(ask(Operation::UseVm, Ownership::Others).await, Err(Refusal::NotFound));
        assert_eq!(authority.asked(), []);
        let action = ActionId::VmRun;
        assert_eq!(ask(Operation::RunVm, Ownership::Nobodys).await, Err(Refusal::Denied { action }));
        let asked = Check { action, caller: caller.clone(), interactive: true, details: Details::new() };
        assert_eq!(authority.asked(), [asked]);
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let action = ActionId::ImagePull;
        let texts: Vec<String> = [
            Refusal::Denied { action },
            Refusal::InteractionRequired { action },
            Refusal::NoAgent { action },
            Refusal::Dismissed { action },
            Refusal::Unavailable { action, why: "polkit is not there".into() },
        ]
        .iter()
        .map(Refusal::to_string)
        .collect();
        for (text, word) in texts.iter().zip(["rules.d", "busctl", "pkttyagent", "again", "install"]) {
            assert!(text.contains(word) && text.contains("org.banger.manager.image-pull"), "{text}");
        }
    }
}
