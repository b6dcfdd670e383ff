//! The modules of a crate, and the paths that each of them names.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, UseTree, visit::Visit};

use crate::{error::CheckError, git};

/// A path in a module; empty for the crate's root.
pub(crate) type ModulePath = Vec<String>;

/// All modules of a crate, without those of tests.
pub(crate) type Modules = BTreeMap<ModulePath, Module>;

/// What the module declares and names.
#[derive(Default)]
pub(crate) struct Module {
    pub(crate) file: String,
    /// Names that `use` declarations bring in, with the path that each stands for.
    pub(crate) imports: Vec<Import>,
    /// Paths with at least two segments, outside of `use`.
    pub(crate) paths: Vec<Vec<String>>,
    /// Names of items that are defined here.
    pub(crate) items: Vec<String>,
}

pub(crate) struct Import {
    /// The name in this module; `None` for a glob.
    pub(crate) name: Option<String>,
    pub(crate) path: Vec<String>,
    /// Whether other modules can import it from here.
    pub(crate) is_public: bool,
}

/// Reads the crate whose root file is `entry`.
pub(crate) fn read(root: &Path, entry: &str) -> Result<Modules, CheckError> {
    let mut reader = Reader { root, modules: Modules::new() };
    let directory = Path::new(entry).parent().unwrap_or(Path::new("")).to_owned();
    reader.read_file(Vec::new(), entry, &directory)?;
    Ok(reader.modules)
}

struct Reader<'a> {
    root: &'a Path,
    modules: Modules,
}

impl Reader<'_> {
    /// `directory` holds the files of the module's children.
    fn read_file(&mut self, path: ModulePath, file: &str, directory: &Path) -> Result<(), CheckError> {
        let source = git::read(self.root, file)?;
        let parsed = syn::parse_file(&source)
            .map_err(|error| CheckError::Parse { path: file.to_owned(), detail: error.to_string() })?;
        self.read_items(path, file, directory, &parsed.items)
    }

    fn read_items(&mut self, path: ModulePath, file: &str, directory: &Path, items: &[Item]) -> Result<(), CheckError> {
        let mut module = Module { file: file.to_owned(), ..Module::default() };
        for item in items {
            if is_test(attributes(item)) {
                continue;
            }
            match item {
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let child_path = [path.as_slice(), std::slice::from_ref(&name)].concat();
                    let child_directory = directory.join(&name);
                    match &child.content {
                        Some((_, items)) => self.read_items(child_path, file, &child_directory, items)?,
                        None => {
                            let Some(child_file) = self.file_of(directory, &name) else { continue };
                            self.read_file(child_path, &child_file, &child_directory)?;
                        }
                    }
                }
                Item::Use(import) => {
                    let is_public = !matches!(import.vis, syn::Visibility::Inherited);
                    flatten(&import.tree, &mut Vec::new(), is_public, &mut module.imports);
                }
                _ => {
                    module.items.extend(name_of(item));
                    Paths(&mut module).visit_item(item);
                }
            }
        }
        self.modules.insert(path, module);
        Ok(())
    }

    fn file_of(&self, directory: &Path, name: &str) -> Option<String> {
        let candidates: [PathBuf; 2] = [directory.join(format!("{name}.rs")), directory.join(name).join("mod.rs")];
        let found = candidates.into_iter().find(|candidate| self.root.join(candidate).is_file())?;
        Some(found.to_string_lossy().into_owned())
    }
}

fn attributes(item: &Item) -> &[syn::Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether an attribute keeps the item out of normal builds: `cfg(test)` and `cfg(doctest)`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string();
        list.path.is_ident("cfg") && (condition == "test" || condition == "doctest")
    })
}

fn name_of(item: &Item) -> Option<String> {
    match item {
        Item::Const(item) => Some(item.ident.to_string()),
        Item::Enum(item) => Some(item.ident.to_string()),
        Item::Fn(item) => Some(item.sig.ident.to_string()),
        Item::Static(item) => Some(item.ident.to_string()),
        Item::Struct(item) => Some(item.ident.to_string()),
        Item::Trait(item) => Some(item.ident.to_string()),
        Item::Type(item) => Some(item.ident.to_string()),
        _ => None,
    }
}

fn flatten(tree: &UseTree, prefix: &mut Vec<String>, is_public: bool, imports: &mut Vec<Import>) {
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, is_public, imports);
            prefix.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            imports.push(Import { name: prefix.last().cloned(), path: prefix.clone(), is_public });
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            let path = [prefix.as_slice(), std::slice::from_ref(&name)].concat();
            imports.push(Import { name: Some(name), path, is_public });
        }
        UseTree::Rename(rename) => {
            let mut path = prefix.clone();
            if rename.ident != "self" {
                path.push(rename.ident.to_string());
            }
            imports.push(Import { name: Some(rename.rename.to_string()), path, is_public });
        }
        UseTree::Glob(_) => imports.push(Import { name: None, path: prefix.clone(), is_public }),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, prefix, is_public, imports)),
    }
}

/// Collects paths of an item, in macros' arguments too.
struct Paths<'a>(&'a mut Module);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && path.leading_colon.is_none() {
            self.0.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        // A `use` within a function.
        let mut imports = Vec::new();
        flatten(&import.tree, &mut Vec::new(), false, &mut imports);
        self.0.paths.extend(imports.into_iter().map(|import| import.path));
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        collect_tokens(&invocation.tokens, &mut self.0.paths);
        syn::visit::visit_macro(self, invocation);
    }
}

/// Finds `a::b::c` in a macro's arguments.
fn collect_tokens(tokens: &TokenStream, paths: &mut Vec<Vec<String>>) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    let mut flush = |path: &mut Vec<String>| {
        if path.len() > 1 {
            paths.push(std::mem::take(path));
        }
        path.clear();
    };
    let mut groups = Vec::new();
    for token in tokens.clone() {
        match token {
            TokenTree::Ident(name) => {
                if colons != 2 {
                    flush(&mut path);
                }
                path.push(name.to_string());
                colons = 0;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
            TokenTree::Group(group) => {
                flush(&mut path);
                groups.push(group.stream());
                colons = 0;
            }
            _ => {
                flush(&mut path);
                colons = 0;
            }
        }
    }
    flush(&mut path);
    for group in groups {
        collect_tokens(&group, paths);
    }
}
