//! The demonstration's image: a real Debian (or Ubuntu) from its own packages, made once and kept.

use crate::machine;
use anyhow::{Context, Result};
use banger_harness::images::Layout;
use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const MMDEBSTRAP: &str = "/usr/bin/mmdebstrap";
/// The release to make where the machine's own has no name.
const FALLBACK: &str = "bookworm";

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
    let distribution = machine::os_release("ID").filter(|id| id == "ubuntu").unwrap_or("debian".into());
    let suite = machine::os_release("VERSION_CODENAME").unwrap_or(FALLBACK.into());
    let mut recipe: Vec<String> = ["--variant=minbase", "--quiet"].map(str::to_owned).to_vec();
    recipe.extend(proxies()?);
    recipe.extend([suite.clone(), "-".into()]);
    recipe.extend(sources().iter().map(|path| path.display().to_string()));

    let layout = machine::cache()?.join(format!("{distribution}-{:016x}", key(&recipe)));
    let image = Image { layout, name: format!("{distribution}:{suite}") };
    if image.layout.join("index.json").exists() {
        return Ok(image);
    }
    eprintln!("making an image of {distribution} {suite} from its packages, once");
    let archive = image.layout.with_extension("tar");
    let mut make = machine::as_root(MMDEBSTRAP);
    make.args(&recipe).stdin(Stdio::null()).stdout(File::create(&archive).context("cannot make an archive")?);
    machine::run(&mut make)?;
    // Written under another name first, so that what has the right name is whole.
    let part = image.layout.with_extension("part");
    remove(&part)?;
    let mut layout = Layout::new(&part)?;
    layout.layer(File::open(&archive).context("cannot read the archive")?)?;
    layout.finish(&serde_json::json!({
        "Cmd": ["/bin/bash"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    }))?;
    fs::remove_file(&archive).context("cannot remove the archive")?;
    fs::rename(&part, &image.layout).context("cannot name the image")?;
    Ok(image)
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
