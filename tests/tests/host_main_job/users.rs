//! Several users on one host: what is whose, and who may do what.

use crate::support::{ALICE, Vm, image, refused, vms};
use banger_harness::inside::{assert_no_residue, banger};

fn is_listed(user: &str, vm: &str) -> bool {
    vms(user).iter().any(|entry| entry["name"] == vm)
}

#[test]
fn another_users_vm_is_not_there() {
    let vm = Vm::start("private");
    assert!(!is_listed("bob", vm.0), "bob sees alice's VM");
    for args in [
        &["exec", "private", "--", "true"][..],
        &["vm", "show", "private"],
        &["vm", "stop", "private"],
        &["vm", "kill", "private"],
        &["vm", "rm", "--force", "private"],
        &["vm", "console", "private"],
        &["vm", "logs", "private"],
    ] {
        let told = refused("bob", args, "NotFound").errors();
        // The same words as for a VM that nobody has.
        let mut other = args.to_vec();
        other.iter_mut().filter(|word| **word == "private").for_each(|word| *word = "nobodys");
        let nobodys = refused("bob", &other, "NotFound").errors();
        assert_eq!(told.replace("private", "nobodys"), nobodys, "the answer gives away that the VM exists");
    }
    vm.exec(&["true"]).expect(0);
    assert!(is_listed("root", vm.0), "root sees everybody's");
    vm.remove();
}

#[test]
fn without_an_active_session_an_administrator_is_asked() {
    let ran = banger("bob", &["--verbose", "vm", "create", "--image", image(), "--name", "bobs"]).expect(125);
    let denied = ["AccessDenied", "InteractiveAuthorizationRequired"];
    assert!(denied.iter().any(|name| ran.errors().contains(name)), "{ran}");
    assert!(!is_listed("root", "bobs"), "a VM came out of a refused request");
    assert_no_residue();
}

#[test]
fn an_image_that_somebody_pulled_is_for_everybody_to_use() {
    let listed = banger("bob", &["image", "ls", "--format", "json"]);
    image();
    let listed_now = banger("bob", &["image", "ls", "--format", "json"]).expect(0);
    assert!(listed_now.text().contains(image()), "before: {listed}\nafter: {listed_now}");
    // Using it does not make it one's own.
    let ran = banger("bob", &["--verbose", "image", "rm", image()]).expect(125);
    assert!(!ran.errors().contains("NotFound"), "{ran}");
    assert!(banger(ALICE, &["image", "show", image()]).code == 0, "bob removed alice's image");
}

#[test]
fn who_uses_an_image_is_told_without_names_that_are_not_the_callers() {
    let vm = Vm::start("secret-name");
    let told = refused("root", &["image", "rm", image()], "InUse").errors();
    assert!(told.contains("secret-name"), "root sees everybody's: {told}");
    let told = refused(ALICE, &["image", "rm", image()], "InUse").errors();
    assert!(told.contains("by secret-name"), "{told}");
    vm.remove();
}
