//! What a kernel is used by, and what of that a user is told.

use crate::{error::Error, service::Service};
use banger_model::Uid;

/// What uses a kernel.
#[derive(Debug, Default)]
pub struct Users {
    /// VMs: name and owner.
    vms: Vec<(String, Uid)>,
    /// Images that want it: what each is called, and its owner when others do not see it.
    images: Vec<(String, Option<Uid>)>,
    /// Whether it is what a VM gets that names none.
    pub default: bool,
}

impl Users {
    /// The users of the kernel called `name`.
    ///
    /// # Errors
    /// When the database fails.
    pub fn of(service: &Service, name: &str) -> Result<Self, Error> {
        let vms = service.store.vms()?.into_iter().filter(|vm| vm.kernel == name);
        let images = service.store.images()?.into_iter().filter(|image| image.kernel == name);
        Ok(Self {
            vms: vms.map(|vm| (vm.name.to_string(), vm.owner)).collect(),
            images: images.map(|image| (image.called(), image.private.then_some(image.owner))).collect(),
            default: super::default_name(service)? == name,
        })
    }

    /// The names of this user's VMs; of everybody's for root.
    pub fn vms_of(&self, caller: Uid) -> Vec<String> {
        let sees = |owner: Uid| owner == caller || caller == Uid::ROOT;
        self.vms.iter().filter(|(_, owner)| sees(*owner)).map(|(name, _)| name.clone()).collect()
    }

    /// All of them for a sentence: what this user sees by name, the rest counted.
    pub fn words(&self, caller: Uid) -> Vec<String> {
        let mut words = self.vms_of(caller);
        let others = self.vms.len() - words.len();
        let sees = |owner: &Option<Uid>| owner.is_none_or(|owner| owner == caller || caller == Uid::ROOT);
        let (seen, hidden): (Vec<_>, Vec<_>) = self.images.iter().partition(|(_, owner)| sees(owner));
        words.extend(seen.iter().map(|(name, _)| format!("the image {name}")));
        let counted = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("a {what} of another user")),
            count => Some(format!("{count} {what}s of other users")),
        };
        words.extend(counted(others, "VM"));
        words.extend(counted(hidden.len(), "private image"));
        if self.default {
            words.push("every VM that names no kernel (`banger kernel default` sets another)".to_owned());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_own_are_named_and_others_counted() {
        let users = Users {
            vms: vec![("web".into(), Uid(1000)), ("secret".into(), Uid(1001)), ("more".into(), Uid(1002))],
            images: vec![
                ("base".into(), None),
                ("mine".into(), Some(Uid(1000))),
                ("theirs".into(), Some(Uid(1))),
            ],
            default: true,
        };
        assert_eq!(users.vms_of(Uid(1000)), ["web"]);
        let words = users.words(Uid(1000)).join(", ");
        assert!(
            words.starts_with(
                "web, the image base, the image mine, 2 VMs of other users, a private image of another user, every VM"
            ),
            "{words}"
        );
        let root = users.words(Uid::ROOT).join(", ");
        assert!(
            root.starts_with("web, secret, more, the image base, the image mine, the image theirs, every"),
            "{root}"
        );
        assert!(Users::default().words(Uid(1)).is_empty());
    }
}
