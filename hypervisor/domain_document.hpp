// The job of DomainDocument: a parsed domain definition beside its text, so that an element found
// in the tree can be cut out of, or replaced in, the text itself. Internal to
// hypervisor/domain_xml*.cpp. The tree refers to `text` by offsets only; both live as long as the
// document. One thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <pugixml.hpp>

#include "vmrepl/base/result.hpp"

namespace havm {

class DomainDocument {
 public:
  static Result<DomainDocument> parse(const std::string& xml);

  [[nodiscard]] pugi::xml_node domain() const { return tree_.child("domain"); }
  [[nodiscard]] pugi::xml_node devices() const { return domain().child("devices"); }
  [[nodiscard]] std::string name() const { return domain().child("name").text().as_string(); }
  // The <disk> with this target; a null node when there is none.
  [[nodiscard]] pugi::xml_node disk(const std::string& target) const;

  // The bytes of an element of this document, from its '<' to its last '>'.
  [[nodiscard]] Result<std::string_view> text_of(pugi::xml_node element) const;
  // The whole text with that element replaced.
  [[nodiscard]] Result<std::string> with_replaced(pugi::xml_node element,
                                                  const std::string& replacement) const;
  // Number of spaces in front of the element when it is the first thing on its line, else 0.
  [[nodiscard]] std::size_t indentation_of(pugi::xml_node element) const;

 private:
  std::string text_;
  pugi::xml_document tree_;
};

// Length of the element that starts at text[0] == '<', 0 when it does not end in `text`.
std::size_t element_length(std::string_view text);

}  // namespace havm
