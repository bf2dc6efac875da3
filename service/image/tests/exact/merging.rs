//! The rules of the OCI image specification, layer.md, "Applying Changesets".

use crate::{fake::archive::Archive, support::pull};

/// Layers from words, oldest first: `d:folder`, `f:file=content`, `s:link=target`, `h:name=target`.
async fn merged(layers: &[&str]) -> String {
    let archives: Vec<Vec<u8>> = layers
        .iter()
        .map(|words| {
            let mut archive = Archive::new();
            for word in words.split_whitespace() {
                let (kind, rest) = word.split_once(':').expect("kind:path");
                let (path, value) = rest.split_once('=').unwrap_or((rest, ""));
                archive = match kind {
                    "d" => archive.dir(path),
                    "f" => archive.file(path, value),
                    "s" => archive.symlink(path, value),
                    "h" => archive.hard_link(path, value),
                    other => panic!("{other}"),
                };
            }
            archive.end()
        })
        .collect();
    pull(&archives).await.show()
}

/// One test for each rule, named by it.
macro_rules! rules {
    ($($name:ident: [$($layer:literal),*] => $expected:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            assert_eq!(merged(&[$($layer),*]).await, $expected);
        }
    )*};
}

rules! {
    a_newer_file_wins: ["f:a=old f:b=b", "f:a=new"] => "a=new b=b";
    a_plain_whiteout_hides_a_file: ["f:a=x f:b=b", "f:.wh.a"] => "b=b";
    a_plain_whiteout_hides_a_directory_with_all_below_it:
        ["d:a d:a/b f:a/b/c=x f:d=d", "f:.wh.a"] => "d=d";
    a_whiteout_below_a_directory_hides_only_that: ["d:a f:a/b=b f:a/c=c", "f:a/.wh.b"] => "a/ a/c=c";
    a_whiteout_of_nothing_does_nothing: ["f:b=b", "f:.wh.a f:x/.wh.y"] => "b=b";
    a_whiteout_hides_nothing_of_newer_layers: ["f:a=old", "f:.wh.a", "f:a=new"] => "a=new";
    a_whiteout_before_a_new_entry_of_the_same_name_spares_it: ["f:a=old", "f:.wh.a f:a=new"] => "a=new";
    a_whiteout_after_a_new_entry_of_the_same_name_spares_it: ["f:a=old", "f:a=new f:.wh.a"] => "a=new";
    a_whiteout_before_a_new_directory_of_the_same_name_empties_it:
        ["d:a f:a/old=x", "f:.wh.a d:a f:a/new=n"] => "a/ a/new=n";
    a_whiteout_after_a_new_directory_of_the_same_name_empties_it:
        ["d:a f:a/old=x", "d:a f:a/new=n f:.wh.a"] => "a/ a/new=n";
    an_opaque_whiteout_before_the_entries_of_its_directory:
        ["d:a f:a/b=x d:a/c f:a/c/d=x", "d:a f:a/.wh..wh..opq f:a/n=n"] => "a/ a/n=n";
    an_opaque_whiteout_after_the_entries_of_its_directory:
        ["d:a f:a/b=x d:a/c f:a/c/d=x", "d:a f:a/n=n f:a/.wh..wh..opq"] => "a/ a/n=n";
    an_opaque_whiteout_between_the_entries_of_its_directory:
        ["d:a f:a/b=x f:a/m=old", "d:a f:a/m=m f:a/.wh..wh..opq f:a/n=n"] => "a/ a/m=m a/n=n";
    an_opaque_whiteout_keeps_the_directory_itself: ["d:a f:a/b=x", "f:a/.wh..wh..opq"] => "a/";
    an_opaque_root_hides_everything_below: ["f:a=x d:b f:b/c=x", "f:.wh..wh..opq f:n=n"] => "n=n";
    an_opaque_whiteout_spares_newer_layers: ["d:a f:a/b=x", "f:a/.wh..wh..opq", "f:a/c=c"] => "a/ a/c=c";
    whiteouts_below_a_file_of_their_layer_do_nothing: ["d:a f:a/b=x", "f:a=a f:a/.wh.b f:a/.wh..wh..opq"] => "a=a";
    a_directory_over_a_file: ["f:a=x", "d:a f:a/b=b"] => "a/ a/b=b";
    a_file_over_a_directory: ["d:a f:a/b=x d:a/c f:a/c/d=x", "f:a=a"] => "a=a";
    a_directory_over_a_file_over_a_directory: ["d:a f:a/b=x", "f:a=x", "d:a f:a/c=c"] => "a/ a/c=c";
    a_directory_over_a_symbolic_link_is_not_followed:
        ["d:u s:a=u f:u/x=x", "d:a f:a/b=b"] => "a/ a/b=b u/ u/x=x";
    a_symbolic_link_over_a_directory: ["d:a f:a/b=x", "s:a=b"] => "a->b";
    a_directory_over_a_directory_keeps_what_is_in_it: ["d:a f:a/b=b", "d:a f:a/c=c"] => "a/ a/b=b a/c=c";
    a_hard_link_in_one_layer: ["f:a=a h:b=a"] => "a=a b==a";
    a_hard_link_to_a_lower_layer: ["f:a=a", "h:b=a"] => "a=a b==a";
    a_hard_link_to_a_layer_far_below: ["d:d f:d/a=a", "f:c=c", "f:e=e", "h:b=d/a"] => "b=a c=c d/ d/a==b e=e";
    a_hard_link_to_a_file_that_its_own_layer_hides: ["f:a=a", "f:.wh.a h:b=a"] => "b=a";
    a_hard_link_to_a_file_that_a_newer_layer_replaces: ["f:a=old h:b=a", "f:a=new"] => "a=new b=old";
    a_hard_link_to_a_file_that_a_newer_layer_hides: ["f:a=a h:b=a h:c=a", "f:.wh.a"] => "b=a c==b";
    a_hard_link_across_layers_to_a_file_that_is_replaced: ["f:a=old", "h:b=a", "f:a=new"] => "a=new b=old";
    a_hard_link_into_a_directory_that_is_hidden: ["d:d f:d/a=a", "h:b=d/a", "f:.wh.d"] => "b=a";
    a_hard_link_to_a_hard_link_across_layers: ["f:a=a", "h:b=a", "h:c=b", "f:.wh.b f:.wh.a"] => "c=a";
    a_hard_link_to_a_symbolic_link: ["s:a=x", "h:b=a"] => "a->x b==a";
    a_link_of_the_same_layer_is_followed_inside_the_image:
        ["d:usr d:usr/lib s:lib=/usr/lib f:lib/x=x"] => "lib->/usr/lib usr/ usr/lib/ usr/lib/x=x";
    the_later_of_two_entries_of_a_layer_wins: ["f:a=one f:a=two"] => "a=two";
    directories_that_no_entry_mentions: ["f:a/b/c=c"] => "a/ a/b/ a/b/c=c";
    names_of_aufs_are_left_out: ["d:.wh..wh.plnk f:.wh..wh.plnk/1.2 f:.wh..wh.aufs f:a=a"] => "a=a";
    leading_dots_and_slashes_mean_nothing: ["d:./ f:./a=a f:/b=b d:c/ f:c//d=d"] => "a=a b=b c/ c/d=d";
    an_empty_layer_changes_nothing: ["f:a=a", "", "f:b=b"] => "a=a b=b";
}

#[tokio::test]
async fn a_zero_byte_layer_changes_nothing() {
    let files = Archive::new().file("a", "a").end();
    let tree = pull(&[files.clone(), vec![], vec![], vec![], files]).await;
    assert_eq!(tree.show(), "a=a");
    // gzip, zstd and nothing at all around no bytes.
    assert_eq!(pull(&[vec![], vec![], vec![]]).await.show(), "");
}

#[tokio::test]
async fn a_directory_takes_the_newest_metadata() {
    let old = Archive::new().mode(0o700).pax("uid", "7").dir("a").end();
    let new = Archive::new().mode(0o1777).pax("uid", "8").dir("a").mode(0o711).dir("./").end();
    let only_a_child = Archive::new().file("a/b", "b").end();
    let tree = pull(&[old, new, only_a_child]).await;
    assert_eq!((tree.get("/a").mode, tree.get("/a").uid), (0o041_777, 8));
    assert_eq!(tree.get("").mode, 0o040_711);
}
