"""What a stage depends on besides its declared inputs: the code that its script reaches by import.

Snakemake does not see an edit in an imported module, so every rule carries `code_digest(script)` as a param.
The digest covers definitions, not files: of a module, only the functions, classes and constants that are used
by what the script uses, followed through imports inside the package, and every statement that runs at import
and is not a definition (`if __name__ == "__main__"` does not). Syntax trees are hashed, so comments, layout,
docstrings and the descriptions of settings do not count.
"""

import ast
import hashlib
import os
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NEEDS_ALL = {"globals", "eval", "exec"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


class _Strip(ast.NodeTransformer):
    """Drop docstrings and the description in `setting(default, description, ...)`."""

    def _body(self, node):
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _body

    def visit_Call(self, node):
        if isinstance(node.func, ast.Name) and node.func.id == "setting" and len(node.args) > 1:
            node.args[1] = ast.Constant("")
        return self.generic_visit(node)


def _names_bound(node):
    """Names that a top-level definition binds; none for a statement that does something at import."""
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return set()
    flat = [item for t in targets for item in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return {item.id for item in flat} if all(isinstance(item, ast.Name) for item in flat) else set()


def _names_read(node):
    """Dotted names in a syntax tree, as far as they are plain: "np.fft.rfft"; of a.b().c it is "a.b"."""
    found, stack = set(), [node]
    while stack:
        n = base = stack.pop()
        parts = []
        while isinstance(base, ast.Attribute):
            parts.append(base.attr)
            base = base.value
        if isinstance(base, ast.Name):
            found.add(".".join([base.id, *reversed(parts)]))
        else:
            stack.extend(ast.iter_child_nodes(n) if n is base else [base])
    return found


def _imports(nodes, package):
    """name -> dotted name that it stands for, of the import statements among the nodes."""
    bound = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for a in node.names:
                bound[a.asname or a.name.split(".")[0]] = a.name if a.asname else a.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            for a in node.names:
                bound[a.asname or a.name] = ".".join([*base, *filter(None, [node.module]), a.name])
    return bound


def _is_of_a_program(node):
    """`if __name__ == "__main__":`, which an import never enters."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


class _Module:
    """A source file as a list of top-level statements: (hash, names bound, names read, imports inside)."""

    def __init__(self, path, root):
        package = path.parent.relative_to(root).parts
        tree = _Strip().visit(ast.parse(path.read_bytes(), filename=str(path)))
        self.imports = _imports(tree.body, package)
        self.statements = []
        for node in tree.body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if is_text or isinstance(node, _IMPORTS) or _is_of_a_program(node):
                continue
            digest = hashlib.sha256(ast.dump(node, annotate_fields=False).encode()).hexdigest()
            inside = _imports(ast.walk(node), package)
            bound = _names_bound(node)
            if not bound:  # such as an import inside a top-level `if`
                self.imports |= inside
            self.statements.append((digest, bound, _names_read(node), inside))
        self.defined = set().union(*(bound for _, bound, _, _ in self.statements))


class _Closure:
    """All statements that a script reaches, as {(file, number of the statement): hash}."""

    def __init__(self, script, root):
        self.root, self.modules, self.reached, self.wanted, self.todo = root, {}, {}, set(), []
        self.want(script, None)
        while self.todo:
            self.follow(*self.todo.pop())

    def load(self, path):
        """Parse a module once. What runs at its import is reached, also that of the packages it is in."""
        if path not in self.modules:
            self.modules[path] = _Module(path, self.root)
            self.take(path, lambda bound: not bound)
            for folder in path.parent.relative_to(self.root).parents:
                self.load_package(self.root / folder)
            self.load_package(path.parent)
        return self.modules[path]

    def load_package(self, folder):
        if folder != self.root and (folder / "__init__.py").is_file():
            self.load(folder / "__init__.py")

    def take(self, path, which):
        for i, (digest, bound, _, _) in enumerate(self.modules[path].statements):
            if which(bound) and (path, i) not in self.reached:
                self.reached[path, i] = digest
                self.todo.append((path, i))

    def want(self, path, name):
        """Reach a name of a module (None: all of it); a name that it only imports is followed."""
        if (path, name) in self.wanted:
            return
        self.wanted.add((path, name))
        module = self.load(path)
        if name is None:
            self.take(path, lambda bound: True)
        elif name in module.defined:
            self.take(path, lambda bound: name in bound)
        elif name in module.imports:
            self.want_dotted(module.imports[name])
        elif "*" in module.imports:
            self.want_dotted(module.imports["*"].removesuffix("*") + name)

    def want_dotted(self, dotted):
        """Reach "package.module.name": the longest part that is a file here, then the name in it."""
        parts = dotted.split(".")
        for n in range(len(parts), 0, -1):
            target = self.root.joinpath(*parts[:n])
            for path in (target.with_suffix(".py"), target / "__init__.py"):
                if path.is_file():
                    self.want(path, parts[n] if n < len(parts) else None)
                    return

    def follow(self, path, number):
        module = self.modules[path]
        _, bound, read, inside = module.statements[number]
        if _NEEDS_ALL & read:
            self.want(path, None)
        for dotted in read:
            head, _, rest = dotted.partition(".")
            meaning = inside.get(head) or module.imports.get(head)
            if meaning:
                self.want_dotted(f"{meaning}.{rest}" if rest else meaning)
            elif head in module.defined or "*" in module.imports:
                self.want(path, head)


def prefer_this_package():
    """Make every process started from here import the package beside the Snakefile, installed or not."""
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p not in ("", str(ROOT))]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *others])


@lru_cache(None)
def _closure(script, root):
    root = Path(root).resolve()
    script = Path(script).resolve()
    return root, _Closure(script, root)


def modules_of(script, root=ROOT):
    """Files (relative to root) of which a script uses something, sorted; the script is one of them."""
    root, closure = _closure(script, root)
    return sorted({path.relative_to(root).as_posix() for path, _ in closure.reached})


@lru_cache(None)
def code_digest(script, root=ROOT):
    """Digest of a script and of everything it reaches by import below `root`: "code:<16 hex digits>".

    Parameters
    ----------
    script : path of the script, below root.
    root : folder from which absolute imports start (the folder that holds `inverseflow`).

    The same in every clone, whatever its place and times. Does not see imports by a computed name.
    """
    root, closure = _closure(script, root)
    found = closure.reached.items()
    lines = sorted(f"{path.relative_to(root).as_posix()} {digest}" for (path, _), digest in found)
    return "code:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
