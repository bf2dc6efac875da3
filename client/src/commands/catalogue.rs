//! `banger image catalogue` and `banger kernel catalogue`: what can be pulled by a plain name.

use crate::{
    bus,
    context::Context,
    error::Error,
    output::{self, Format},
    progress::note,
};
use banger_dbus::CatalogueInfo;

/// Lists the entries of one kind, `image` or `kernel`; files that do not count are told on standard error.
///
/// # Errors
/// [`Error`] if it could not be done.
pub async fn list(context: &mut Context, kind: &str, format: Format) -> Result<(), Error> {
    let manager = context.manager().await?;
    let listed = context.signals.guard(manager.list_catalogue(&bus::none())).await?;
    let all = listed.into_iter().map(CatalogueInfo::from_dict).collect::<Result<Vec<_>, _>>()?;
    for problem in all.iter().filter(|entry| entry.kind == "problem") {
        note(&format!("{} does not count: {}", problem.name, problem.description));
    }
    let entries: Vec<CatalogueInfo> = all.into_iter().filter(|entry| entry.kind == kind).collect();
    if format == Format::Json {
        return output::print_json(&entries);
    }
    let row = |entry: &CatalogueInfo| {
        let detail = if kind == "kernel" { &entry.release } else { &entry.kernel };
        vec![
            entry.name.clone(),
            entry.architecture.clone(),
            entry.size.to_string(),
            output::or_dash(detail),
            output::or_dash(&entry.description),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let detail = if kind == "kernel" { "RELEASE" } else { "KERNEL" };
    output::print(&output::table(&["NAME", "ARCHITECTURE", "DOWNLOAD", detail, "DESCRIPTION"], &rows))
}
