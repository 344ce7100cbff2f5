//! A parsed template, written out again with every operation that can grow a value made a call.
//!
//! The template engine limits steps, not memory: `s ~ s` doubles a string in one step. Operators cannot
//! be replaced inside the engine, so the syntax tree is printed as a template in which they are calls of
//! the functions of `guard`: `a + b` becomes `__apr_add(a, b)`. Constants and raw text become global
//! values, so nothing has to be quoted. Statements keep their lines for messages.

use minijinja::Value;
use minijinja::machinery::ast::{
    BinOp, BinOpKind, CallArg, CompareOpKind, Expr, ForLoop, IfCond, Macro, Set, Stmt, UnaryOpKind,
};

use super::limits::RESERVED;
use crate::error::{Code, Error, Result};

/// A rewritten template and the constants it names.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    pub(super) source: String,
    /// Constant `n` is the global `__apr_k{n}`.
    pub(super) constants: Vec<Value>,
    line: u16,
}

/// Name of constant `index`.
pub(super) fn constant_name(index: usize) -> String {
    format!("{RESERVED}k{index}")
}

fn refused(what: &str) -> Error {
    Error::new(Code::TemplateSyntax)
        .expected("a chat template without other files")
        .found(format!("a {what} statement"))
}

impl Rewritten {
    /// Rewrites the tree of a whole template.
    pub(super) fn of(tree: &Stmt<'_>) -> Result<Self> {
        let mut out = Self { line: 1, ..Self::default() };
        match tree {
            Stmt::Template(template) => out.body(&template.children)?,
            other => out.statement(other)?,
        }
        Ok(out)
    }

    fn constant(&mut self, value: Value) -> String {
        self.constants.push(value);
        constant_name(self.constants.len() - 1)
    }

    fn put(&mut self, text: &str) {
        self.source.push_str(text);
    }

    /// Opens a tag on the line where the original stands.
    fn tag(&mut self, open: &str, line: u16) {
        self.put(open);
        while self.line < line {
            self.source.push('\n');
            self.line += 1;
        }
    }

    fn body(&mut self, body: &[Stmt<'_>]) -> Result<()> {
        body.iter().try_for_each(|statement| self.statement(statement))
    }

    fn block(&mut self, body: &[Stmt<'_>], end: &str) -> Result<()> {
        self.put(" %}");
        self.body(body)?;
        self.put("{% ");
        self.put(end);
        self.put(" %}");
        Ok(())
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Result<()> {
        match statement {
            Stmt::Template(template) => return self.body(&template.children),
            Stmt::EmitRaw(raw) => {
                let name = self.constant(Value::from(raw.raw));
                self.put(&format!("{{{{ {name} }}}}"));
            }
            Stmt::EmitExpr(emit) => {
                self.tag("{{ ", emit.span().start_line);
                let expr = self.expr(&emit.expr)?;
                self.put(&format!("{expr} }}}}"));
            }
            Stmt::ForLoop(node) => return self.for_loop(node, node.span().start_line),
            Stmt::IfCond(node) => return self.if_cond(node, node.span().start_line),
            Stmt::WithBlock(node) => {
                self.tag("{% with ", node.span().start_line);
                for (index, (target, value)) in node.assignments.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    let text = format!("{comma}{} = {}", target_text(target)?, self.expr(value)?);
                    self.put(&text);
                }
                return self.block(&node.body, "endwith");
            }
            Stmt::Set(node) => return self.set(node, node.span().start_line),
            Stmt::SetBlock(node) => {
                self.tag("{% set ", node.span().start_line);
                self.put(&target_text(&node.target)?);
                if let Some(filter) = &node.filter {
                    let filter = self.expr(filter)?;
                    self.put(&format!(" | {filter}"));
                }
                return self.block(&node.body, "endset");
            }
            Stmt::FilterBlock(node) => {
                self.tag("{% filter ", node.span().start_line);
                let filter = self.expr(&node.filter)?;
                self.put(&filter);
                return self.block(&node.body, "endfilter");
            }
            Stmt::Macro(node) => {
                self.tag("{% macro ", node.span().start_line);
                self.put(node.name);
                self.macro_head(node)?;
                return self.block(&node.body, "endmacro");
            }
            Stmt::CallBlock(node) => {
                self.tag("{% call", node.span().start_line);
                self.macro_head(&node.macro_decl)?;
                let call =
                    format!(" {}({})", self.expr(&node.call.expr)?, self.args(&node.call.args)?);
                self.put(&call);
                return self.block(&node.macro_decl.body, "endcall");
            }
            Stmt::Continue(_) => self.put("{% continue %}"),
            Stmt::Break(_) => self.put("{% break %}"),
            Stmt::Do(node) => {
                self.tag("{% do ", node.span().start_line);
                let call =
                    format!("{}({})", self.expr(&node.call.expr)?, self.args(&node.call.args)?);
                self.put(&call);
                self.put(" %}");
            }
            Stmt::AutoEscape(_) => return Err(refused("autoescape")),
            Stmt::Block(_) => return Err(refused("block")),
            Stmt::Import(_) | Stmt::FromImport(_) => return Err(refused("import")),
            Stmt::Extends(_) => return Err(refused("extends")),
            Stmt::Include(_) => return Err(refused("include")),
        }
        Ok(())
    }

    fn for_loop(&mut self, node: &ForLoop<'_>, line: u16) -> Result<()> {
        self.tag("{% for ", line);
        let head =
            format!("{} in {RESERVED}each({})", target_text(&node.target)?, self.expr(&node.iter)?);
        self.put(&head);
        if let Some(filter) = &node.filter_expr {
            let filter = self.expr(filter)?;
            self.put(&format!(" if ({filter})"));
        }
        if node.recursive {
            self.put(" recursive");
        }
        self.put(" %}");
        self.body(&node.body)?;
        if !node.else_body.is_empty() {
            self.put("{% else %}");
            self.body(&node.else_body)?;
        }
        self.put("{% endfor %}");
        Ok(())
    }

    fn if_cond(&mut self, node: &IfCond<'_>, line: u16) -> Result<()> {
        self.tag("{% if ", line);
        let mut node = node;
        loop {
            let expr = self.expr(&node.expr)?;
            self.put(&format!("{expr} %}}"));
            self.body(&node.true_body)?;
            match node.false_body.as_slice() {
                [] => break,
                [Stmt::IfCond(next)] => {
                    self.tag("{% elif ", next.span().start_line);
                    node = next;
                }
                other => {
                    self.put("{% else %}");
                    self.body(other)?;
                    break;
                }
            }
        }
        self.put("{% endif %}");
        Ok(())
    }

    fn set(&mut self, node: &Set<'_>, line: u16) -> Result<()> {
        self.tag("{% set ", line);
        let value = self.expr(&node.expr)?;
        let target = target_text(&node.target)?;
        // Into a namespace goes nothing that contains a namespace.
        let stored = matches!(node.target, Expr::GetAttr(_));
        let value = if stored { format!("{RESERVED}store({value})") } else { value };
        self.put(&format!("{target} = {value} %}}"));
        Ok(())
    }

    /// `(a, b=default)` of a macro or call block.
    fn macro_head(&mut self, node: &Macro<'_>) -> Result<()> {
        let without = node.args.len() - node.defaults.len();
        let mut parts = Vec::new();
        for (index, arg) in node.args.iter().enumerate() {
            let name = target_text(arg)?;
            match index.checked_sub(without).and_then(|at| node.defaults.get(at)) {
                Some(default) => parts.push(format!("{name}={}", self.expr(default)?)),
                None => parts.push(name),
            }
        }
        self.put(&format!("({})", parts.join(", ")));
        Ok(())
    }

    fn expr(&mut self, expr: &Expr<'_>) -> Result<String> {
        Ok(match expr {
            Expr::Var(var) => var.id.to_owned(),
            Expr::Const(constant) => self.constant(constant.value.clone()),
            Expr::Slice(node) => {
                let value = self.expr(&node.expr)?;
                let mut bound = |bound: &Option<Expr<'_>>| match bound {
                    Some(bound) => self.expr(bound),
                    None => Ok("none".to_owned()),
                };
                let (start, stop) = (bound(&node.start)?, bound(&node.stop)?);
                format!("{RESERVED}slice({value}, {start}, {stop}, {})", bound(&node.step)?)
            }
            Expr::UnaryOp(node) => {
                let value = self.expr(&node.expr)?;
                match node.op {
                    UnaryOpKind::Not => format!("(not {value})"),
                    UnaryOpKind::Neg => format!("(-{value})"),
                }
            }
            Expr::BinOp(node) => self.binary(node)?,
            Expr::Compare(node) => {
                let mut parts = vec![format!("{RESERVED}look({})", self.expr(&node.expr)?)];
                for op in &node.ops {
                    let value = self.expr(&op.expr)?;
                    parts.push(format!("{} {RESERVED}look({value})", comparison(op.op)));
                }
                format!("({})", parts.join(" "))
            }
            Expr::IfExpr(node) => {
                let test = self.expr(&node.test_expr)?;
                let yes = self.expr(&node.true_expr)?;
                match &node.false_expr {
                    Some(no) => format!("({yes} if {test} else {})", self.expr(no)?),
                    None => format!("({yes} if {test})"),
                }
            }
            Expr::Filter(node) => {
                let args = self.args(&node.args)?;
                match &node.expr {
                    Some(value) => format!("({}|{}({args}))", self.expr(value)?, node.name),
                    None => format!("{}({args})", node.name),
                }
            }
            Expr::Test(node) => {
                let value = self.expr(&node.expr)?;
                let args = self.args(&node.args)?;
                let args = if args.is_empty() { args } else { format!("({args})") };
                format!("({value} is {}{args})", node.name)
            }
            Expr::GetAttr(node) => format!("{}.{}", self.expr(&node.expr)?, node.name),
            Expr::GetItem(node) => {
                let value = self.expr(&node.expr)?;
                format!("{RESERVED}touch({value})[{}]", self.expr(&node.subscript_expr)?)
            }
            Expr::Call(node) => format!("{}({})", self.expr(&node.expr)?, self.args(&node.args)?),
            Expr::List(node) => format!("{RESERVED}own([{}])", self.list(&node.items)?),
            Expr::Tuple(node) => {
                let comma = if node.items.len() == 1 { "," } else { "" };
                format!("{RESERVED}own(({}{comma}))", self.list(&node.items)?)
            }
            Expr::Map(node) => {
                let mut parts = Vec::new();
                for (key, value) in node.keys.iter().zip(&node.values) {
                    parts.push(format!("{}: {}", self.expr(key)?, self.expr(value)?));
                }
                format!("{RESERVED}own({{ {} }})", parts.join(", "))
            }
        })
    }

    fn list(&mut self, items: &[Expr<'_>]) -> Result<String> {
        let items: Result<Vec<String>> = items.iter().map(|item| self.expr(item)).collect();
        Ok(items?.join(", "))
    }

    fn binary(&mut self, node: &BinOp<'_>) -> Result<String> {
        let (left, right) = (self.expr(&node.left)?, self.expr(&node.right)?);
        let plain = |op: &str| format!("({left} {op} {right})");
        let looked = |op: &str| format!("({RESERVED}look({left}) {op} {RESERVED}look({right}))");
        let call = |name: &str| format!("{RESERVED}{name}({left}, {right})");
        Ok(match node.op {
            BinOpKind::Eq => looked("=="),
            BinOpKind::Ne => looked("!="),
            BinOpKind::Lt => looked("<"),
            BinOpKind::Lte => looked("<="),
            BinOpKind::Gt => looked(">"),
            BinOpKind::Gte => looked(">="),
            BinOpKind::In => looked("in"),
            BinOpKind::ScAnd => plain("and"),
            BinOpKind::ScOr => plain("or"),
            BinOpKind::Add => call("add"),
            BinOpKind::Concat => call("concat"),
            BinOpKind::Mul => call("mul"),
            BinOpKind::Sub => plain("-"),
            BinOpKind::Div => plain("/"),
            BinOpKind::FloorDiv => plain("//"),
            BinOpKind::Rem => plain("%"),
            BinOpKind::Pow => plain("**"),
        })
    }

    fn args(&mut self, args: &[CallArg<'_>]) -> Result<String> {
        let mut parts = Vec::new();
        for arg in args {
            parts.push(match arg {
                CallArg::Pos(value) => self.expr(value)?,
                CallArg::Kwarg(name, value) => format!("{name}={}", self.expr(value)?),
                CallArg::PosSplat(value) => format!("*{}", self.expr(value)?),
                CallArg::KwargSplat(value) => format!("**{}", self.expr(value)?),
            });
        }
        Ok(parts.join(", "))
    }
}

fn comparison(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => "in",
        CompareOpKind::NotIn => "not in",
    }
}

/// What stands on the left of an assignment: a name, a namespace attribute, or a list of them.
fn target_text(target: &Expr<'_>) -> Result<String> {
    Ok(match target {
        Expr::Var(var) => var.id.to_owned(),
        Expr::GetAttr(node) => format!("{}.{}", target_text(&node.expr)?, node.name),
        Expr::List(node) => {
            let items: Result<Vec<String>> = node.items.iter().map(target_text).collect();
            format!("({},)", items?.join(", "))
        }
        _ => return Err(Error::new(Code::TemplateSyntax).expected("a name to assign to")),
    })
}
