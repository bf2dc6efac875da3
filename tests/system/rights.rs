//! Who may what, by the policy that is installed and the real polkit.

use crate::host::{IMAGE, alice, bob, image, root, start};

/// alice sits at the host; bob comes from elsewhere, and nobody can ask him.
pub fn by_session() {
    image();
    start("hers", &[]);
    let refused = bob(&["run", "--rm", IMAGE, "--", "true"]).expect(125);
    assert!(refused.errors().contains("org.banger.manager.vm-run needs authentication"), "{refused}");
    assert_eq!(bob(&["vm", "ls", "--format", "json"]).expect(0).text().trim(), "[]", "it is not his to see");
    assert!(bob(&["vm", "stop", "hers"]).expect(125).errors().contains("hers"));
    bob(&["vm", "rm", "--force", "hers"]).expect(125);
    assert!(root(&["vm", "ls"]).expect(0).text().contains("hers"), "root sees everything");
    root(&["vm", "stop", "hers"]).expect(0);
    alice(&["vm", "rm", "hers"]).expect(0);
}
