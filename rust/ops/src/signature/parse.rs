//! Signatures from their text. The one rule: a name means one thing, and what is written wrong says where.

use super::{Input, LETTERS, Lead, Output, Shape, Sign, Signature, Size, Type};
use base::{Dtype, Kind};

type Parsed<T> = std::result::Result<T, String>;

impl Signature {
    /// From `name`, `inputs; scalars` and `outputs`.
    pub fn parse(name: &'static str, inputs: &'static str, outputs: &'static str) -> Parsed<Signature> {
        let sig = Signature { name, inputs: vec![], outputs: vec![], scalars: vec![], letters: vec![], pack: None };
        let mut p = Parser { text: inputs, at: 0, sig };
        p.inputs().map_err(|e| p.place(&e))?;
        let mut p = Parser { text: outputs, at: 0, sig: p.sig };
        p.outputs().map_err(|e| p.place(&e))?;
        let (s, inputs) = (&p.sig, p.sig.inputs.iter().map(|i| i.name));
        let mut names: Vec<_> =
            inputs.chain(s.scalars.iter().map(|s| s.0)).chain(s.letters.iter().copied()).chain(s.pack).collect();
        names.sort_unstable();
        if let Some([twice, ..]) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(format!("{name}: {twice} means two things"));
        }
        if s.outputs[s.shown()..].iter().any(|o| !o.saved) {
            return Err(format!("{name}: what is saved comes last"));
        }
        if s.letters.len() > LETTERS {
            return Err(format!("{name}: more than {LETTERS} letters"));
        }
        Ok(p.sig)
    }
}

struct Parser {
    text: &'static str,
    at: usize,
    sig: Signature,
}

impl Parser {
    fn place(&self, e: &str) -> String {
        format!("{}: {e} at `{}` of `{}`", self.sig.name, self.rest(), self.text)
    }
    fn rest(&self) -> &'static str {
        self.text[self.at..].trim_start()
    }
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest();
        let yes = rest.starts_with(token);
        if yes {
            self.at = self.text.len() - rest.len() + token.len();
        }
        yes
    }
    fn need(&mut self, token: &str) -> Parsed<()> {
        if self.take(token) { Ok(()) } else { Err(format!("`{token}` is missing")) }
    }
    fn word(&mut self, first: fn(char) -> bool) -> Option<&'static str> {
        let rest = self.rest();
        if !rest.starts_with(first) {
            return None;
        }
        let n = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at = self.text.len() - rest.len() + n;
        Some(&rest[..n])
    }
    fn name(&mut self) -> Parsed<&'static str> {
        self.word(|c| c.is_ascii_alphabetic()).ok_or_else(|| "a name is missing".to_owned())
    }
    fn number(&mut self) -> Parsed<Option<i64>> {
        self.word(|c| c.is_ascii_digit()).map(|n| n.parse().map_err(|_| format!("{n} is no number"))).transpose()
    }
    fn end(&self) -> bool {
        self.rest().is_empty()
    }

    /// `..` or `b..`, and the comma after it.
    fn lead(&mut self) -> Parsed<Lead> {
        let before = self.at;
        let lead = if self.take("..") {
            Lead::Rows
        } else if let Some(name) = self.word(|c| c.is_ascii_alphabetic())
            && self.take("..")
        {
            if self.sig.pack.is_some_and(|p| p != name) {
                return Err("leading axes have two names".to_owned());
            }
            self.sig.pack = Some(name);
            Lead::Same
        } else {
            self.at = before;
            return Ok(Lead::None);
        };
        if !self.rest().starts_with(']') {
            self.need(",")?;
        }
        Ok(lead)
    }

    fn inputs(&mut self) -> Parsed<()> {
        while !self.end() && !self.take(";") {
            let name = self.name()?;
            let many = self.take("*");
            self.need("[")?;
            let (lead, core) = if self.take("*") {
                (Lead::None, None)
            } else {
                let (lead, mut core) = (self.lead()?, vec![]);
                while !self.rest().starts_with(']') {
                    core.push(self.axis()?);
                    self.take(",");
                }
                (lead, Some(core))
            };
            self.need("]")?;
            if many && core.is_some() {
                return Err("a list is of any shapes, `[*]`".to_owned());
            }
            let optional = self.take("?");
            let wider = self.take(":");
            if wider {
                let like = self.name()?;
                if self.input(like).is_none() || !(self.take("|") && self.take(Dtype::F32.name())) {
                    return Err("`: <a row before it> | float32` is all that is said of an input's type".to_owned());
                }
            }
            self.sig.inputs.push(Input { name, lead, core, optional, many, wider });
            self.take(",");
        }
        while !self.end() {
            let name = self.name()?;
            let kind = match if self.take(":") { self.name()? } else { "float" } {
                "float" => Kind::Float,
                "int" => Kind::Int,
                "bool" => Kind::Bool,
                "needs" => Kind::Needs,
                other => return Err(format!("{other} is no kind of scalar")),
            };
            self.sig.scalars.push((name, kind));
            self.take(",");
        }
        Ok(())
    }

    /// `d`, `1` or `m + 1`.
    fn axis(&mut self) -> Parsed<(Option<usize>, usize)> {
        let size =
            |n: Option<i64>| n.and_then(|n| usize::try_from(n).ok()).ok_or_else(|| "a size is missing".to_owned());
        if let Some(n) = self.number()? {
            return Ok((None, size(Some(n))?));
        }
        let name = self.name()?;
        let known = self.sig.letters.iter().position(|&l| l == name);
        let letter = known.unwrap_or_else(|| {
            self.sig.letters.push(name);
            self.sig.letters.len() - 1
        });
        let more = if self.take("+") { size(self.number()?)? } else { 0 };
        Ok((Some(letter), more))
    }

    fn input(&self, name: &str) -> Option<usize> {
        self.sig.inputs.iter().position(|p| p.name == name)
    }
    fn scalar(&self, name: &str) -> Option<usize> {
        self.sig.scalars.iter().position(|s| s.0 == name)
    }

    fn outputs(&mut self) -> Parsed<()> {
        while !self.end() {
            let saved = self.take("(");
            let name = self.name()?;
            let many = self.take("*");
            self.need("[")?;
            let (shape, dtype) = self.shape()?;
            self.need("]")?;
            if many != matches!(shape, Shape::Like(k) if self.sig.inputs[k].many) {
                return Err("a list is like a list".to_owned());
            }
            let needed = self.take("?");
            let dtype = if self.take(":") { self.dtype()? } else { dtype };
            if saved {
                self.need(")")?;
            }
            self.sig.outputs.push(Output { name, shape, dtype, many, needed, saved });
            self.take(",");
        }
        Ok(())
    }

    /// What stands in brackets, and the type that goes with it if none is said.
    fn shape(&mut self) -> Parsed<(Shape, Type)> {
        let before = self.at;
        if let Some(name) = self.word(|c| c.is_ascii_alphabetic()) {
            if let Some(k) = self.input(name) {
                return Ok((Shape::Like(k), Type::Like(k)));
            }
            if name == "grain" {
                self.need("(")?;
                let x = self.name()?;
                let x = self.input(x).ok_or("an input is missing")?;
                let mut of = [x, 0, 0];
                for slot in &mut of[1..] {
                    self.need(",")?;
                    let k = self.name()?;
                    *slot = self.scalar(k).ok_or("a scalar is missing")?;
                }
                self.need(")")?;
                return Ok((Shape::Grain(of), Type::Like(x)));
            }
        }
        self.at = before;
        let (lead, mut core) = (self.lead()?, vec![]);
        while !self.rest().starts_with(']') {
            core.push(self.size()?);
            self.take(",");
        }
        Ok((Shape::Of(lead, core), Type::Like(0)))
    }

    /// `test ? a : b`
    fn size(&mut self) -> Parsed<Size> {
        let test = self.compared()?;
        if !self.take("?") {
            return Ok(test);
        }
        let a = self.size()?;
        self.need(":")?;
        Ok(Size::If(Box::new([test, a, self.size()?])))
    }
    fn compared(&mut self) -> Parsed<Size> {
        self.chain(&[Sign::Equal, Sign::Less, Sign::And], |p| {
            p.chain(&[Sign::Plus, Sign::Minus], |p| p.chain(&[Sign::Times, Sign::Over], Parser::atom))
        })
    }
    fn chain(&mut self, signs: &[Sign], part: fn(&mut Parser) -> Parsed<Size>) -> Parsed<Size> {
        let mut a = part(self)?;
        while let Some(&(sign, _)) = Sign::ALL.iter().find(|(s, text)| signs.contains(s) && self.take(text)) {
            a = Size::Of(sign, Box::new([a, part(self)?]));
        }
        Ok(a)
    }
    fn atom(&mut self) -> Parsed<Size> {
        if self.take("(") {
            let inner = self.size()?;
            self.need(")")?;
            return Ok(inner);
        }
        if let Some(n) = self.number()? {
            return Ok(Size::Int(n));
        }
        let name = self.name()?;
        let letter = self.sig.letters.iter().position(|&l| l == name).map(Size::Letter);
        letter
            .or_else(|| self.scalar(name).map(Size::Scalar))
            .or_else(|| (self.sig.pack == Some(name)).then_some(Size::Lead))
            .ok_or_else(|| format!("{name} is no letter and no scalar"))
    }

    fn dtype(&mut self) -> Parsed<Type> {
        let before = self.at;
        let name = self.name()?;
        if let Some(&d) = Dtype::ALL.iter().find(|d| d.name() == name) {
            return Ok(Type::Is(d));
        }
        match name {
            "compute" => return Ok(Type::Compute),
            "float" => {
                self.need("(")?;
                let k = self.name()?;
                let k = self.scalar(k).ok_or("a scalar is missing")?;
                self.need(")")?;
                return Ok(Type::Float(k));
            }
            _ => {}
        }
        if let Some(k) = self.input(name) {
            return Ok(Type::Like(k));
        }
        self.at = before;
        let test = self.compared()?;
        self.need("?")?;
        let a = self.dtype()?;
        self.need(":")?;
        Ok(Type::If(test, Box::new([a, self.dtype()?])))
    }
}
