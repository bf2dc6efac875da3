//! Whole images: e2fsck finds nothing, and what is read back is what went in.

mod support;

use banger_ext4::{Ext4Error, Size, Writer};
use proptest::prelude::*;
use std::io::Cursor;
use support::reader::Reader;
use support::tools::{e2fsck, resize2fs};
use support::trees::{compare, image, items, options, write};

#[test]
fn an_empty_image_of_each_size_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    for size in [8 << 20, 100 << 20, (128 << 20) + 4096, 1 << 30, (3 << 30) + 12345, 40 << 30, 1 << 40] {
        for expected in [0, size] {
            let mut options = options();
            options.expected = expected;
            let writer = Writer::new(std::fs::File::create(&path).unwrap(), options).unwrap();
            match writer.finish(Size::Exactly(size)) {
                Ok(summary) => {
                    assert!(summary.size <= size && summary.size + (1 << 20) > size);
                    assert_eq!(std::fs::metadata(&path).unwrap().len(), summary.size);
                    e2fsck(&path);
                }
                Err(Ext4Error::TooLarge { limit, .. }) => assert!(expected == 0 && limit < size),
                Err(error) => panic!("{size}: {error}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_trees_are_clean_and_read_back(items in items(0..60), extra in 0u64..300 << 20) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let (model, summary) = image(&items, Size::AtLeast(extra), &path).unwrap();
        prop_assert_eq!(std::fs::metadata(&path).unwrap().len(), summary.size);
        e2fsck(&path);
        compare(&model, &Reader::open(&path).walk());
    }

    #[test]
    fn images_can_be_resized(items in items(0..40), to in 20u64..3000) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let (model, _) = image(&items, Size::AtLeast(200 << 20), &path).unwrap();
        resize2fs(&path, &format!("{}M", 200 + to));
        e2fsck(&path);
        compare(&model, &Reader::open(&path).walk());
        resize2fs(&path, "120M");
        e2fsck(&path);
        compare(&model, &Reader::open(&path).walk());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn the_same_calls_give_the_same_bytes(items in items(0..60)) {
        let bytes = || {
            let mut memory = Cursor::new(Vec::new());
            let mut writer = Writer::new(&mut memory, options()).unwrap();
            write(&mut writer, &items).unwrap();
            writer.finish(Size::AtLeast(0)).unwrap();
            memory.into_inner()
        };
        prop_assert!(bytes() == bytes());
    }
}
