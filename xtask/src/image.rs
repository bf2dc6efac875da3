//! Images to show and to measure with: a real Debian (or Ubuntu) from its own packages, made once and kept.

use crate::machine;
use anyhow::{Context, Result};
use banger_harness::images::Layout;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const MMDEBSTRAP: &str = "/usr/bin/mmdebstrap";
/// The release to make where the machine's own has no name.
const FALLBACK: &str = "bookworm";
/// What is made while installing gets this time, so that two installations have it in the same way.
const EPOCH: &str = "1700000000";

/// What every image has. Nobody needs the files of an installation to survive a power cut.
const RECIPE: [&str; 3] = ["--variant=minbase", "--quiet", "--dpkgopt=force-unsafe-io"];

/// An image layout in the cache.
#[derive(Debug)]
pub struct Image {
    /// The layout's folder.
    pub layout: PathBuf,
    /// What it is called in a registry: `debian:bookworm`.
    pub name: String,
}

/// The image, made now if this is the first time.
///
/// # Errors
/// When its packages cannot be fetched.
pub fn debian() -> Result<Image> {
    let (distribution, suite) = release();
    make(format!("{distribution}:{suite}"), &[&[]])
}

/// What is measured with: a base and two layers of further packages, such as people build on. Some 50,000 files, more
/// than 1 GB, about 500 MB as gzip.
const LAYERS: &[&[&str]] =
    &[&[], &["build-essential", "git", "python3-numpy", "vim"], &["default-jdk-headless", "npm"]];

/// An image of three layers, made now if this is the first time, which takes minutes.
///
/// # Errors
/// When its packages cannot be fetched.
pub fn layered() -> Result<Image> {
    let (distribution, suite) = release();
    make(format!("layered-{distribution}:{suite}"), LAYERS)
}

fn release() -> (String, String) {
    let distribution = machine::os_release("ID").filter(|id| id == "ubuntu").unwrap_or("debian".into());
    (distribution, machine::os_release("VERSION_CODENAME").unwrap_or(FALLBACK.into()))
}

/// An image with a layer for each set of packages, on top of those before it.
fn make(name: String, layers: &[&[&str]]) -> Result<Image> {
    let (distribution, suite) = release();
    let all = layers.concat();
    let image = Image {
        layout: machine::cache()?.join(format!(
            "{}-{:016x}",
            name.split(':').next().unwrap_or_default(),
            key(&recipe(&suite, &all)?)
        )),
        name,
    };
    if image.layout.join("index.json").exists() {
        return Ok(image);
    }
    eprintln!("making an image of {distribution} {suite} from its packages, once");
    // Written under another name first, so that what has the right name is whole.
    let part = image.layout.with_extension("part");
    remove(&part)?;
    let mut layout = Layout::new(&part)?;
    let mut below: Option<PathBuf> = None;
    for count in 1..=layers.len() {
        let archive = image.layout.with_extension(format!("{count}.tar"));
        bootstrap(&layers[..count].concat(), &archive)?;
        match below.replace(archive.clone()) {
            None => drop(layout.layer(open(&archive)?)?),
            Some(below) => {
                let difference = difference(&below, &archive)?;
                layout.layer(open(&difference)?)?;
                drop_file(&difference)?;
                drop_file(&below)?;
            }
        }
    }
    layout.finish(&serde_json::json!({
        "Cmd": ["/bin/bash"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    }))?;
    below.as_deref().map_or(Ok(()), drop_file)?;
    fs::rename(&part, &image.layout).context("cannot name the image")?;
    Ok(image)
}

/// Writes the root filesystem of a system with these packages as an archive.
///
/// # Errors
/// When its packages cannot be fetched.
pub fn bootstrap(packages: &[&str], archive: &Path) -> Result<()> {
    let mut bootstrap = machine::as_root(MMDEBSTRAP);
    bootstrap.args(recipe(&release().1, packages)?).env("SOURCE_DATE_EPOCH", EPOCH);
    bootstrap.stdin(Stdio::null()).stdout(File::create(archive).context("cannot make an archive")?);
    machine::run(&mut bootstrap)
}

/// The arguments of mmdebstrap for an archive with these packages.
fn recipe(suite: &str, packages: &[&str]) -> Result<Vec<String>> {
    let mut recipe: Vec<String> = RECIPE.map(str::to_owned).to_vec();
    if !packages.is_empty() {
        recipe.push(format!("--include={}", packages.join(",")));
    }
    recipe.extend(proxies()?);
    recipe.extend([suite.to_owned(), "-".into()]);
    recipe.extend(sources().iter().map(|path| path.display().to_string()));
    Ok(recipe)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("cannot read {}", path.display()))
}

fn drop_file(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Writes an archive of what `archive` has and `below` does not have in the same way. What is gone stays: packages were
/// only added.
fn difference(below: &Path, archive: &Path) -> Result<PathBuf> {
    let mut known = HashSet::new();
    each(below, |hash, _| {
        known.insert(hash);
        Ok(())
    })?;
    let target = archive.with_extension("changed");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&target).context("cannot make an archive")?);
    each(archive, |hash, bytes| match known.contains(&hash) {
        true => Ok(()),
        false => out.write_all(bytes).context("cannot write an archive"),
    })?;
    out.write_all(&[0; 1024]).and_then(|()| out.flush()).context("cannot end an archive")?;
    Ok(target)
}

/// Goes through the entries of an archive: each with its extended headers, body and padding, as bytes and as their hash.
fn each(archive: &Path, mut handle: impl FnMut([u8; 32], &[u8]) -> Result<()>) -> Result<()> {
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, open(archive)?));
    let mut bytes = Vec::new();
    for entry in archive.entries().context("cannot read an archive")?.raw(true) {
        let mut entry = entry.context("cannot read an archive")?;
        bytes.extend_from_slice(entry.header().as_bytes());
        entry.read_to_end(&mut bytes).context("cannot read an archive")?;
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let kind = entry.header().entry_type();
        if kind.is_pax_local_extensions() || kind.is_gnu_longname() || kind.is_gnu_longlink() {
            continue;
        }
        handle(Sha256::digest(&bytes).into(), &bytes)?;
        bytes.clear();
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Equal for equal recipes and package sources; a cache's key only, so it may change with the compiler.
fn key(recipe: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    recipe.hash(&mut hasher);
    for path in sources() {
        fs::read(path).ok().hash(&mut hasher);
    }
    hasher.finish()
}

/// The machine's own package sources (sources.list(5)).
fn sources() -> Vec<PathBuf> {
    let folder =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = folder
        .chain([PathBuf::from("/etc/apt/sources.list")])
        .filter(|path| path.extension().is_some_and(|ext| ext == "list" || ext == "sources"))
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("deb")))
        .filter(|path| fs::read_to_string(path).is_ok_and(|text| is_distribution(&text)))
        .collect();
    all.sort();
    all
}

/// Whether these sources are signed by the distribution: an image needs nobody else's packages, and their keys
/// may be unknown in it.
fn is_distribution(sources: &str) -> bool {
    !sources.contains("Signed-By") && !sources.contains("signed-by")
        || sources.contains("-archive-keyring.gpg")
}

/// The proxies that apt is told to use, as mmdebstrap's options.
fn proxies() -> Result<Vec<String>> {
    let mut command = Command::new("/usr/bin/apt-config");
    command.args(["dump", "--format", "%f \"%v\";%n", "Acquire::http", "Acquire::https"]);
    let text = banger_harness::output(&mut command)?;
    let set = text.lines().filter(|line| line.contains("::Proxy") && !line.ends_with("\"\";"));
    Ok(set.map(|line| format!("--aptopt={line}")).collect())
}
