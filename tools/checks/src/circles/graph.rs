//! Which file needs which: paths resolved to the files that define their items.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::{ModulePath, Modules};

/// For each file the files it needs.
pub(crate) type Needs = BTreeMap<String, BTreeSet<String>>;

/// Re-exports are followed this deep; a chain of them that is longer is a circle of globs.
const MAX_DEPTH: usize = 16;

/// Returns the needs of each file of a crate.
pub(crate) fn needs(modules: &Modules) -> Needs {
    let mut needs = Needs::new();
    for (path, module) in modules {
        let mut needed = BTreeSet::new();
        for import in module.imports.iter().filter(|import| !import.is_public) {
            needed.extend(resolve(modules, path, &import.path, MAX_DEPTH));
        }
        for named in &module.paths {
            needed.extend(resolve(modules, path, named, MAX_DEPTH));
        }
        needed.remove(&module.file);
        needs.entry(module.file.clone()).or_default().extend(needed);
    }
    needs
}

/// The file that defines the item at `named`, seen from the module at `from`; `None` for items of other crates.
fn resolve(modules: &Modules, from: &ModulePath, named: &[String], depth: usize) -> Option<String> {
    let (first, rest) = named.split_first()?;
    let depth = depth.checked_sub(1)?;
    match first.as_str() {
        "crate" => walk(modules, Vec::new(), rest, depth),
        "self" => walk(modules, from.clone(), rest, depth),
        "super" => {
            let (_, parent) = from.split_last()?;
            match rest.first().map(String::as_str) {
                Some("super") => resolve(modules, &parent.to_vec(), rest, depth),
                _ => walk(modules, parent.to_vec(), rest, depth),
            }
        }
        _ => {
            let child = [from.as_slice(), std::slice::from_ref(first)].concat();
            modules.contains_key(&child).then(|| walk(modules, child, rest, depth)).flatten()
        }
    }
}

/// Goes down from the module at `at` as long as names are modules, then finds the item.
fn walk(modules: &Modules, mut at: ModulePath, named: &[String], depth: usize) -> Option<String> {
    let mut rest = named;
    while let Some((name, after)) = rest.split_first() {
        let child = [at.as_slice(), std::slice::from_ref(name)].concat();
        if modules.contains_key(&child) {
            at = child;
            rest = after;
            continue;
        }
        return item(modules, &at, name, after, depth);
    }
    modules.get(&at).map(|module| module.file.clone())
}

fn item(modules: &Modules, at: &ModulePath, name: &String, after: &[String], depth: usize) -> Option<String> {
    let module = modules.get(at)?;
    if module.items.contains(name) {
        return Some(module.file.clone());
    }
    if let Some(import) = module.imports.iter().find(|import| import.name.as_ref() == Some(name)) {
        let target = [import.path.as_slice(), after].concat();
        return resolve(modules, at, &target, depth);
    }
    for import in module.imports.iter().filter(|import| import.name.is_none()) {
        let target = [import.path.as_slice(), std::slice::from_ref(name)].concat();
        let file = resolve(modules, at, &target, depth);
        if file.is_some() {
            return file;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{
        super::modules::{Import, Module},
        *,
    };

    fn path(text: &str) -> Vec<String> {
        text.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn module(file: &str, items: &[&str], imports: &[(&str, bool)]) -> Module {
        let import = |(to, is_public): &(&str, bool)| Import {
            name: path(to).last().cloned(),
            path: path(to),
            is_public: *is_public,
        };
        Module {
            file: file.to_owned(),
            imports: imports.iter().map(import).collect(),
            paths: Vec::new(),
            items: items.iter().map(|item| (*item).to_owned()).collect(),
        }
    }

    #[test]
    fn re_export_is_followed_and_is_no_need() {
        let modules = Modules::from([
            (path(""), module("lib.rs", &[], &[("store::Store", true)])),
            (path("store"), module("store.rs", &["Store"], &[])),
            (path("cache"), module("cache.rs", &["Cache"], &[("crate::Store", false)])),
        ]);
        let needs = needs(&modules);
        assert_eq!(needs["cache.rs"], BTreeSet::from(["store.rs".to_owned()]));
        assert!(needs["lib.rs"].is_empty());
    }

    #[test]
    fn super_reaches_items_of_the_parent() {
        let modules = Modules::from([
            (path(""), module("lib.rs", &[], &[])),
            (path("store"), module("store.rs", &["Store"], &[("store::append::Append", false)])),
            (path("store::append"), module("append.rs", &["Append"], &[("super::Store", false)])),
        ]);
        assert_eq!(needs(&modules)["append.rs"], BTreeSet::from(["store.rs".to_owned()]));
    }
}
