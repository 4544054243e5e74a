#include "hypervisor/domain_document.hpp"

#include <utility>

namespace havm {
namespace {

// Length of the tag that starts at text[0] == '<', with quoted '>' taken as text; 0 when
// unfinished.
std::size_t tag_length(std::string_view text) {
  char quote = 0;
  for (std::size_t i = 1; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != 0) {
      if (c == quote) quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '>') {
      return i + 1;
    }
  }
  return 0;
}

// Length of a comment, CDATA section or processing instruction at the start; 0 when it is none.
std::size_t non_element_length(std::string_view text) {
  constexpr std::pair<std::string_view, std::string_view> forms[] = {
      {"<!--", "-->"}, {"<![CDATA[", "]]>"}, {"<?", "?>"}};
  for (const auto& [open, close] : forms) {
    if (!text.starts_with(open)) continue;
    const std::size_t end = text.find(close, open.size());
    return end == std::string_view::npos ? text.size() : end + close.size();
  }
  return 0;
}

}  // namespace

std::size_t element_length(std::string_view text) {
  std::size_t depth = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    at = text.find('<', at);
    if (at == std::string_view::npos) return 0;
    const std::string_view rest = text.substr(at);
    if (const std::size_t skipped = non_element_length(rest); skipped != 0) {
      at += skipped;
      continue;
    }
    const std::size_t length = tag_length(rest);
    if (length == 0) return 0;
    at += length;
    if (rest[1] == '/') {
      if (depth == 0) return 0;
      --depth;
    } else if (rest[length - 2] != '/') {
      ++depth;
    }
    if (depth == 0) return at;
  }
  return 0;
}

Result<DomainDocument> DomainDocument::parse(const std::string& xml) {
  DomainDocument document;
  document.text_ = xml;
  const pugi::xml_parse_result parsed = document.tree_.load_buffer(
      document.text_.data(), document.text_.size(), pugi::parse_default, pugi::encoding_utf8);
  if (!parsed)
    return Error("the domain definition is not well-formed XML: " +
                 std::string(parsed.description()) + " at byte " + std::to_string(parsed.offset));
  if (!document.domain()) return Error("the XML is not a libvirt domain (no <domain> element)");
  if (document.name().empty()) return Error("the domain definition has no <name>");
  return document;
}

pugi::xml_node DomainDocument::disk(const std::string& target) const {
  for (const pugi::xml_node node : devices().children("disk"))
    if (target == node.child("target").attribute("dev").value()) return node;
  return {};
}

Result<std::string_view> DomainDocument::text_of(pugi::xml_node element) const {
  // offset_debug() is the place of the name, one after '<'.
  const std::ptrdiff_t name_at = element.offset_debug();
  if (name_at < 1 || static_cast<std::size_t>(name_at) >= text_.size() ||
      text_[static_cast<std::size_t>(name_at) - 1] != '<')
    return Error("cannot find an element of VM '" + name() + "' in its definition");
  const std::string_view from =
      std::string_view(text_).substr(static_cast<std::size_t>(name_at) - 1);
  const std::size_t length = element_length(from);
  if (length == 0) return Error("cannot find the end of an element of VM '" + name() + "'");
  return from.substr(0, length);
}

Result<std::string> DomainDocument::with_replaced(pugi::xml_node element,
                                                  const std::string& replacement) const {
  BOOST_OUTCOME_TRY(const std::string_view old, text_of(element));
  const auto start = static_cast<std::size_t>(old.data() - text_.data());
  std::string changed = text_.substr(0, start);
  changed += replacement;
  changed += text_.substr(start + old.size());
  return changed;
}

std::size_t DomainDocument::indentation_of(pugi::xml_node element) const {
  const std::ptrdiff_t name_at = element.offset_debug();
  if (name_at < 1) return 0;
  std::size_t spaces = 0;
  auto at = static_cast<std::size_t>(name_at) - 1;
  while (at > 0 && text_[at - 1] == ' ') {
    --at;
    ++spaces;
  }
  return at == 0 || text_[at - 1] == '\n' ? spaces : 0;
}

}  // namespace havm
