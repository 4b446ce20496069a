"use strict";
/* Runs the script of the console against a gateway and prints what is in the page, as JSON.

node console_dom.js BASE_URL: the page is fetched from there too. The document is the least that the
script needs; it knows no markup, so that text which would have to be parsed is an error here. */

const vm = require("node:vm");
const [base] = process.argv.slice(2);

class Element {
  constructor(name) {
    Object.assign(this, { name, attributes: {}, children: [], style: {}, hidden: false });
  }
  setAttribute(key, value) { this.attributes[key] = String(value); }
  addEventListener() {}
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  set className(value) { this.attributes.class = value; }
  set textContent(text) { this.children = [text]; }
  set innerHTML(_) { throw new Error("markup is made from text"); }
}

function plain(node) {
  if (!(node instanceof Element)) return String(node);
  const { name, attributes, style } = node;
  return { name, attributes, style, children: node.children.map(plain) };
}

async function main() {
  const html = await (await fetch(base + "/")).text();
  const script = /<script>([^]*)<\/script>/.exec(html)[1];
  const ids = new Map([...html.matchAll(/ id="([^"]+)"/g)].map((m) => [m[1], new Element("div")]));
  const print = () => {
    const page = Object.fromEntries([...ids].map(([id, node]) => [id, plain(node)]));
    process.stdout.write(JSON.stringify(page));
  };
  vm.runInNewContext(script, {
    document: {
      hidden: false,
      title: "",
      createElement: (name) => new Element(name),
      createElementNS: (_, name) => new Element(name),
      getElementById: (id) => ids.get(id),
    },
    fetch: (path, options) => fetch(base + path, options),
    sessionStorage: { getItem: () => null, setItem: () => {} },
    setTimeout: print, // after the first round the script waits for the next one
  });
}

main();
