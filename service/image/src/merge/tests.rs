use super::model::{Layer, Listing, Naive, Tree, merged};
use super::*;
use crate::Unsupported;
use proptest::prelude::*;

/// Metadata that tells entries apart.
fn metadata(uid: u32) -> Metadata {
    Metadata { uid, ..Metadata::default() }
}

/// Reads a layer from words: `d` directories, `f` files, `s` symbolic links, `h` hard links (`name=target`), each
/// numbered by its place, which becomes its owner and content.
fn layer(number: u32, words: &str) -> Layer {
    let mut entries = Vec::new();
    for (at, word) in words.split_whitespace().enumerate() {
        let id = number * 100 + at as u32;
        let (what, rest) = word.split_once(':').expect("kind:name");
        let (name, target) = rest.split_once('=').unwrap_or((rest, ""));
        let kind = match what {
            "d" => Kind::Directory,
            "f" => Kind::Leaf(Leaf::File),
            "s" => Kind::Leaf(Leaf::Symlink(target.into())),
            "h" => Kind::HardLink(target.into()),
            "p" => Kind::Leaf(Leaf::Fifo),
            other => panic!("{other}"),
        };
        let body = if kind == Kind::Leaf(Leaf::File) { format!("{id}") } else { String::new() };
        entries.push((Entry { path: name.into(), kind, metadata: metadata(id) }, body.into_bytes()));
    }
    Layer(entries)
}

fn layers(words: &[&str]) -> Vec<Layer> {
    words.iter().enumerate().map(|(at, words)| layer(at as u32 + 1, words)).collect()
}

/// `path` or `path(owner)`, `path->target` for a symbolic link, `path=first` for a second name.
fn show(listing: &Listing) -> String {
    let mut words = Vec::new();
    for (path, (kind, metadata, _, same)) in listing {
        let slash = if *kind == Kind::Directory { "/" } else { "" };
        let link = match kind {
            Kind::Leaf(Leaf::Symlink(target)) => format!("->{}", String::from_utf8_lossy(target)),
            _ => String::new(),
        };
        let same = if same == path { String::new() } else { format!("={}", &same[1..]) };
        if !path.is_empty() {
            words.push(format!("{}{slash}{link}{same}:{}", &path[1..], metadata.uid));
        }
    }
    words.join(" ")
}

#[test]
fn the_rules() {
    for (why, words, expected) in [
        ("a newer file wins", &["f:a f:b", "f:a"] as &[&str], "a:200 b:101"),
        ("a whiteout hides a file", &["f:a f:b", "f:.wh.a"], "b:101"),
        ("a whiteout hides a folder", &["d:a f:a/b f:c", "f:.wh.a"], "c:102"),
        ("a whiteout of nothing does nothing", &["f:b", "f:.wh.a f:x/.wh.y"], "b:100"),
        ("a whiteout spares its own layer", &["d:a f:a/b", "d:a f:a/c f:.wh.a"], "a/:200 a/c:201"),
        ("in either order", &["d:a f:a/b", "f:.wh.a d:a f:a/c"], "a/:201 a/c:202"),
        (
            "opaque empties a folder",
            &["d:a f:a/b d:a/c f:a/c/d", "d:a f:a/.wh..wh..opq f:a/x"],
            "a/:200 a/x:202",
        ),
        ("opaque in the other order", &["d:a f:a/b", "d:a f:a/x f:a/.wh..wh..opq"], "a/:200 a/x:201"),
        ("opaque keeps the folder itself", &["d:a f:a/b", "f:a/.wh..wh..opq"], "a/:100"),
        ("opaque in the root", &["f:a d:b f:b/c", "f:.wh..wh..opq f:x"], "x:201"),
        ("a deleted file comes back", &["f:a", "f:.wh.a", "f:a"], "a:300"),
        ("a deleted folder comes back empty", &["d:a f:a/b", "f:.wh.a", "d:a f:a/c"], "a/:300 a/c:301"),
        ("a folder over a file", &["f:a", "d:a f:a/b"], "a/:200 a/b:201"),
        ("a file over a folder", &["d:a f:a/b", "f:a"], "a:200"),
        ("and back", &["d:a f:a/b", "f:a", "f:a/c"], "a/:0 a/c:300"),
        ("a folder over a link", &["d:u s:a=u f:u/x", "d:a f:a/b"], "a/:200 a/b:201 u/:100 u/x:102"),
        ("implicit folder over a link", &["d:u s:a=u", "f:a/b"], "a/:0 a/b:200 u/:100"),
        ("metadata of the newest", &["d:a f:a/b", "d:a"], "a/:200 a/b:101"),
        ("implicit folders take older metadata", &["d:a", "f:a/b"], "a/:100 a/b:200"),
        ("implicit folders", &["f:a/b/c"], "a/:0 a/b/:0 a/b/c:100"),
        ("below a hidden folder", &["d:a d:a/b f:a/b/c", "f:a/.wh.b"], "a/:100"),
        ("the later entry wins", &["f:a f:a"], "a:101"),
        ("a file becomes a folder in one layer", &["f:a d:a f:a/b"], "a/:101 a/b:102"),
        (
            "links of one layer are followed",
            &["d:usr d:usr/lib s:lib=usr/lib f:lib/x"],
            "lib->usr/lib:102 usr/:100 usr/lib/:101 usr/lib/x:103",
        ),
        ("hard link", &["f:a h:b=a"], "a:100 b=a:100"),
        ("hard link to a lower layer", &["f:a", "h:b=a"], "a:100 b=a:100"),
        ("hard link two layers down", &["f:a", "f:c", "h:b=a"], "a:100 b=a:100 c:200"),
        ("hard link to what is replaced", &["f:a h:b=a", "f:a"], "a:200 b:100"),
        ("hard link to what is deleted", &["f:a h:b=a h:c=a", "f:.wh.a"], "b:100 c=b:100"),
        ("hard link into a deleted folder", &["d:d f:d/a h:b=d/a", "f:.wh.d"], "b:101"),
        ("hard link across, to what is replaced", &["f:a", "h:b=a", "f:a"], "a:300 b:100"),
        ("hard link across, deleted by its own layer", &["f:a", "f:.wh.a h:b=a"], "b:100"),
        ("the name is replaced, not the target", &["f:a h:b=a", "f:b"], "a:100 b:200"),
        ("chain of links", &["f:a h:b=a h:c=b", "f:.wh.a f:.wh.b"], "c:100"),
        ("chain across layers", &["f:a", "h:b=a", "h:c=b", "f:.wh.b f:.wh.a"], "c:100"),
        ("link to a link that is replaced", &["f:a h:b=a", "f:a f:b", "f:c"], "a:200 b:201 c:300"),
        ("links to a symbolic link", &["s:a=x h:b=a"], "a->x:100 b->x=a:100"),
        ("the target wins over the newer", &["f:a h:b=a", "f:x", "f:a"], "a:300 b:100 x:200"),
        ("link over a file of its layer", &["f:a f:b h:b=a"], "a:100 b=a:100"),
        ("a link twice", &["f:a h:b=a h:b=a"], "a:100 b=a:100"),
        ("file over a link of its layer", &["f:a h:b=a f:b"], "a:100 b:102"),
        ("aufs keeps its own", &["d:.wh..wh.plnk f:.wh..wh.plnk/1 f:.wh..wh.aufs f:a"], "a:103"),
        ("names are odd", &["f:./a f:/b f:c// d:d/"], "a:100 b:101 c:102 d/:103"),
        ("an empty layer", &["f:a", ""], "a:100"),
    ] {
        let layers = layers(words);
        let tree = merged(&layers).unwrap_or_else(|e| panic!("{why}: {e}")).0;
        assert_eq!(show(&tree.listing()), expected, "{why}");
        assert_eq!(tree.listing(), Naive::apply(&layers).unwrap(), "{why}: the naive way differs");
    }
}

#[test]
fn the_root_takes_the_newest_metadata() {
    let tree = merged(&layers(&["d:./ f:a", "d:/", "f:b"])).unwrap().0;
    assert_eq!(tree.listing()[""].1.uid, 200);
}

#[test]
fn what_is_hidden_is_not_written() {
    let layers = layers(&["f:a f:b d:c f:c/d", "f:a f:.wh.b f:.wh.c"]);
    let (tree, again) = merged(&layers).unwrap();
    assert_eq!((tree.written, again), ("200".len(), 0));
}

#[test]
fn a_layer_is_read_again_only_for_hidden_targets() {
    assert_eq!(merged(&layers(&["f:a h:b=a", "h:c=a"])).unwrap().1, 0);
    assert_eq!(merged(&layers(&["f:a h:b=a", "f:a"])).unwrap().1, 1);
}

#[test]
fn hostile_entries_are_refused() {
    for (words, why) in [
        (&["f:../a"] as &[&str], ".."),
        (&["f:a/../b"], ".."),
        (&["f:a h:b=../a"], ".."),
        (&["f:.wh."], "whiteout of nothing"),
        (&["f:.wh.."], "whiteout of nothing"),
        (&["f:a/.wh..."], "whiteout of nothing"),
        (&["f:.wh.a/b"], "below a whiteout"),
        (&["f:./"], "root must be"),
        (&["s:/=x"], "root must be"),
        (&["f:a f:a/b"], "something else than a folder"),
        (&["f:a f:a/b", "f:a"], "something else than a folder"),
        (&["f:a f:a/b", "f:a/c"], "something else than a folder"),
        (&["d:a f:a"], "replaces a directory"),
        (&["f:a/b f:a", "f:a/c"], "replaces a directory"),
        (&["s:a=b s:b=a f:a/x"], "circle"),
        (&["h:a=b"], "not there"),
        (&["h:a=a"], "itself"),
        (&["f:a", "h:b=a/c"], "not there"),
        (&["f:c", "f:.wh.c", "h:b=c"], "not there"),
        (&["d:c f:c/x", "f:c/.wh..wh..opq", "h:b=c/x"], "not there"),
        (&["f:c", "f:.wh..wh..opq", "h:b=c"], "not there"),
        (&["d:a h:b=a"], "directory"),
        (&["d:a", "h:b=a"], "directory"),
    ] {
        let layers = layers(words);
        match merged(&layers) {
            Err(ImageError::Unsafe(Unsafe::Entry { why: got, .. })) => {
                assert!(got.contains(why), "{words:?}: {got}")
            }
            other => panic!("{words:?}: {:?}", other.map(|(tree, _)| show(&tree.listing()))),
        }
    }
}

#[test]
fn limits_of_names_and_entries() {
    let long = format!("f:{}", "n".repeat(256));
    assert!(matches!(merged(&layers(&[&long])), Err(ImageError::Unsupported(Unsupported::Entry { .. }))));
    let limits = Limits { entries: 3, ..Limits::default() };
    let mut merger = Merger::new(Tree::default(), limits);
    assert!(!merger.layer(&mut layer(1, "f:a f:b").reader()).unwrap());
    match merger.layer(&mut layer(2, "f:c f:d").reader()) {
        Err(ImageError::Unsafe(Unsafe::Limit { value: 4, limit: 3, .. })) => {}
        other => panic!("{other:?}"),
    }
}

/// Layers over a small alphabet of paths, so that they meet.
fn any_layers() -> impl Strategy<Value = Vec<Layer>> {
    let name = || proptest::sample::select(vec!["a", "b", "c"]);
    let path = move || proptest::collection::vec(name(), 1..4).prop_map(|parts| parts.join("/"));
    let entry = prop_oneof![
        4 => path().prop_map(|p| (p, Kind::Leaf(Leaf::File))),
        4 => path().prop_map(|p| (p, Kind::Directory)),
        3 => path().prop_map(|p| match p.rsplit_once('/') {
            Some((parent, name)) => (format!("{parent}/.wh.{name}"), Kind::Leaf(Leaf::File)),
            None => (format!(".wh.{p}"), Kind::Leaf(Leaf::File)),
        }),
        1 => path().prop_map(|p| (format!("{p}/.wh..wh..opq"), Kind::Leaf(Leaf::File))),
        3 => (path(), path()).prop_map(|(p, t)| (p, Kind::HardLink(t.into()))),
        1 => (path(), path()).prop_map(|(p, t)| (p, Kind::Leaf(Leaf::Symlink(t.into())))),
        1 => path().prop_map(|p| (p, Kind::Leaf(Leaf::Fifo))),
    ];
    let layer = proptest::collection::vec(entry, 0..7);
    proptest::collection::vec(layer, 1..5).prop_map(|layers| {
        let mut id = 0;
        let mut layer = |entries: Vec<(String, Kind)>| {
            Layer(
                entries
                    .into_iter()
                    .map(|(path, kind)| {
                        id += 1;
                        let body =
                            if kind == Kind::Leaf(Leaf::File) { format!("{id}") } else { String::new() };
                        (Entry { path: path.into(), kind, metadata: metadata(id) }, body.into_bytes())
                    })
                    .collect(),
            )
        };
        layers.into_iter().map(&mut layer).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// What the naive way accepts gives the same tree newest first. What it refuses may be hidden here and so do no harm.
    #[test]
    fn newest_first_is_oldest_first(layers in any_layers()) {
        if let Ok(expected) = Naive::apply(&layers) {
            let tree = merged(&layers);
            prop_assert!(tree.is_ok(), "{:?}", tree.err());
            prop_assert_eq!(tree.unwrap().0.listing(), expected);
        } else {
            let _ = merged(&layers);
        }
    }
}
