//! The actions that polkit knows: their names, defaults and words, in one table.

use std::fmt;

/// What polkit answers where no administrator's rule does, polkit(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implicit {
    /// Allowed.
    Yes,
    /// An administrator authenticates, each time.
    AuthAdmin,
    /// An administrator authenticates, which is kept for a few minutes.
    AuthAdminKeep,
}

impl Implicit {
    /// The word for it in a policy file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::AuthAdmin => "auth_admin",
            Self::AuthAdminKeep => "auth_admin_keep",
        }
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $active:ident, $description:literal, $message:literal,
       $prompt:literal;)+) => {
        /// A polkit action.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ActionId {
            $($(#[$doc])* $variant,)+
        }

        impl ActionId {
            /// Every action, in the order of the policy file.
            pub const ALL: &'static [ActionId] = &[$(ActionId::$variant),+];

            /// Its name at polkit.
            pub fn id(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!("org.banger.manager.", $name),)+
                }
            }

            /// The default for somebody who sits at the machine. Everybody else, remote or behind a locked
            /// screen, needs an administrator ([`Implicit::AuthAdmin`]).
            pub fn active(self) -> Implicit {
                match self {
                    $(Self::$variant => Implicit::$active,)+
                }
            }

            /// What is allowed by it, for an administrator who reads `pkaction`.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $description,)+
                }
            }

            /// What a prompt says when no details are known.
            pub fn message(self) -> &'static str {
                match self {
                    $(Self::$variant => $message,)+
                }
            }

            /// What a prompt says; polkit puts the value of the detail `key` in the place of `$(key)`.
            pub fn prompt(self) -> &'static str {
                match self {
                    $(Self::$variant => $prompt,)+
                }
            }
        }
    };
}

actions! {
    /// An image comes out of a registry.
    ImagePull = "image-pull", Yes,
        "Download images from a registry",
        "Authentication is required to download an image",
        "Authentication is required to download the image $(image)";
    /// An image is taken from a file.
    ImageImport = "image-import", Yes,
        "Import images from files",
        "Authentication is required to import an image",
        "Authentication is required to import an image as $(image)";
    /// A kernel is taken from a file.
    KernelImport = "kernel-import", Yes,
        "Import kernels for virtual machines",
        "Authentication is required to import a kernel",
        "Authentication is required to import a kernel as $(kernel)";
    /// One's own VM is made, started or changed.
    VmRun = "vm-run", Yes,
        "Create and run virtual machines",
        "Authentication is required to run a virtual machine",
        "Authentication is required to run the virtual machine $(vm)";
    /// A VM reaches outside.
    NetworkNat = "network-nat", Yes,
        "Let virtual machines reach other networks",
        "Authentication is required to let a virtual machine reach other networks",
        "Authentication is required to let the virtual machine $(vm) reach other networks";
    /// A port of a VM is reachable from outside, or below 1024.
    NetworkPublish = "network-publish", AuthAdminKeep,
        "Publish ports of virtual machines beyond this computer",
        "Authentication is required to publish a port of a virtual machine",
        "Authentication is required to publish port $(port) of the virtual machine $(vm)";
    /// Another user's image gets another name, or goes.
    ImageDeleteOthers = "image-delete-others", AuthAdminKeep,
        "Change and delete images of other users",
        "Authentication is required to change an image of another user",
        "Authentication is required to change or delete the image $(image) of user $(owner)";
    /// Another user's kernel goes.
    KernelDeleteOthers = "kernel-delete-others", AuthAdminKeep,
        "Delete kernels of other users",
        "Authentication is required to delete a kernel of another user",
        "Authentication is required to delete the kernel $(kernel) of user $(owner)";
    /// Another user's VM is started, stopped, changed or deleted.
    VmManageOthers = "vm-manage-others", AuthAdminKeep,
        "Manage virtual machines of other users",
        "Authentication is required to manage a virtual machine of another user",
        "Authentication is required to manage the virtual machine $(vm) of user $(owner)";
    /// Another user's job ends.
    JobCancelOthers = "job-cancel-others", AuthAdminKeep,
        "Cancel operations of other users",
        "Authentication is required to cancel an operation of another user",
        "Authentication is required to cancel an operation of user $(owner)";
    /// The host's settings change.
    SystemConfigure = "system-configure", AuthAdminKeep,
        "Change the settings for all virtual machines",
        "Authentication is required to change the settings for all virtual machines",
        "Authentication is required to change the setting $(setting) for all virtual machines";
    /// A VM gets more than users may have.
    LimitsRaise = "limits-raise", AuthAdminKeep,
        "Exceed the limits for virtual machines",
        "Authentication is required to exceed the limits for virtual machines",
        "Authentication is required to exceed the limit of $(limit)";
}

impl ActionId {
    /// The keys of the details that its prompt shows.
    pub fn keys(self) -> impl Iterator<Item = &'static str> {
        self.prompt().split("$(").skip(1).filter_map(|rest| rest.split_once(')')).map(|(key, _)| key)
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_designed_ones() {
        use ActionId::*;
        for action in ActionId::ALL {
            let expected = match action {
                ImagePull | ImageImport | KernelImport | VmRun | NetworkNat => Implicit::Yes,
                _ => Implicit::AuthAdminKeep,
            };
            assert_eq!(action.active(), expected, "{action}");
        }
    }

    #[test]
    fn every_prompt_names_what_it_is_about() {
        for action in ActionId::ALL {
            assert!(action.keys().count() >= 1, "{action}");
            assert!(action.message().starts_with("Authentication is required to "), "{action}");
            assert!(action.prompt().starts_with("Authentication is required to "), "{action}");
            assert!(!action.message().contains('$'), "{action}");
        }
        assert_eq!(ActionId::NetworkPublish.keys().collect::<Vec<_>>(), ["port", "vm"]);
    }
}
