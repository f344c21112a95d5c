// An option is found as it is written: the search reads a "-" in front of a word as "without", and fails on "--".
addEventListener("DOMContentLoaded", () => {
  const query = document.querySelector("[data-md-component=search-query]");
  const value = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
  Object.defineProperty(query, "value", {
    get() { return value.get.call(query).replace(/(^|\s)-+/g, "$1"); },
    set(text) { value.set.call(query, text); },
  });
});
