//! Reads the HTML of a page, as far as the dashboard writes it: attributes in double quotes, every
//! element closed.

/// An element of a page.
#[derive(Debug)]
pub struct Element {
    pub name: String,
    attributes: Vec<(String, String)>,
    /// The place of the element around it.
    parent: Option<usize>,
    /// All text within it.
    pub text: String,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    elements: Vec<Element>,
}

const VOID: [&str; 5] = ["input", "link", "meta", "br", "hr"];

impl Page {
    /// Panics if the page is not well formed.
    pub fn read(html: &str) -> Self {
        let (mut elements, mut open) = (Vec::<Element>::new(), Vec::<usize>::new());
        let mut rest = html;
        while let Some(start) = rest.find('<') {
            let (text, tag) = rest.split_at(start);
            for place in &open {
                elements[*place].text.push_str(text);
            }
            let tag = &tag[1..];
            // A `>` within an attribute's value is escaped.
            let (inner, after) = tag.split_once('>').expect("a tag ends");
            rest = after;
            if inner.starts_with('!') {
                continue;
            }
            if let Some(name) = inner.strip_prefix('/') {
                let closed = open.pop().expect("an open element");
                assert_eq!(elements[closed].name, name, "before {:?}", beginning(after));
                continue;
            }
            let element = element(inner, open.last().copied());
            let is_void = VOID.contains(&element.name.as_str());
            elements.push(element);
            if !is_void {
                open.push(elements.len() - 1);
            }
        }
        assert!(open.is_empty(), "every element is closed");
        Self { elements }
    }

    pub fn all(&self) -> impl Iterator<Item = &Element> {
        self.elements.iter()
    }

    pub fn named(&self, name: &str) -> Vec<&Element> {
        self.elements.iter().filter(|element| element.name == name).collect()
    }

    /// The elements around one, from the inside.
    pub fn around(&self, element: &Element) -> Vec<&Element> {
        let mut around = Vec::new();
        let mut parent = element.parent;
        while let Some(place) = parent {
            around.push(&self.elements[place]);
            parent = self.elements[place].parent;
        }
        around
    }

    /// The elements within one.
    pub fn within(&self, element: &Element) -> Vec<&Element> {
        let within =
            |one: &&Element| self.around(one).iter().any(|outer| std::ptr::eq(*outer, element));
        self.elements.iter().filter(within).collect()
    }
}

impl Element {
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(of, _)| of == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn has_class(&self, class: &str) -> bool {
        self.get("class").is_some_and(|classes| classes.split(' ').any(|one| one == class))
    }

    pub fn attribute_names(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().map(|(name, _)| name.as_str())
    }
}

fn element(inner: &str, parent: Option<usize>) -> Element {
    let (name, mut rest) = inner.split_once(' ').unwrap_or((inner, ""));
    let mut attributes = Vec::new();
    while !rest.trim().is_empty() {
        rest = rest.trim_start();
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let (attribute, after) = rest.split_at(end);
        let (value, after) = match after.strip_prefix("=\"") {
            Some(quoted) => quoted.split_once('"').expect("a value ends"),
            None => ("", after),
        };
        attributes.push((attribute.to_owned(), value.to_owned()));
        rest = after;
    }
    Element { name: name.to_owned(), attributes, parent, text: String::new() }
}

fn beginning(text: &str) -> String {
    text.chars().take(80).collect()
}
