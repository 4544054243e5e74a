#include "agent/policy/json_document.hpp"

#include <regex>
#include <set>
#include <vector>

#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "agent/policy/nearest_word.hpp"
#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

using nlohmann::json;

constexpr std::size_t max_document_bytes = 1024 * 1024;
constexpr std::size_t max_depth = 32;
constexpr std::size_t max_shown_bytes = 60;

// "line 3, column 14" of a byte offset counted from 1.
std::string place_of(const std::string& text, std::size_t byte) {
  std::size_t line = 1;
  std::size_t column = 1;
  for (std::size_t i = 0; i + 1 < byte && i < text.size(); ++i) {
    ++column;
    if (text[i] == '\n') {
      ++line;
      column = 1;
    }
  }
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

// Follows the parser to know where it is: one frame for each container that is open.
class DuplicateKeys {
 public:
  explicit DuplicateKeys(Findings& findings) : findings_(findings) {}

  void take(json::parse_event_t event, const json& parsed) {
    if (too_deep_) return;  // lost count on purpose: a hostile depth must not cost memory
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        open(event == json::parse_event_t::array_start);
        break;
      case json::parse_event_t::key:
        key(parsed.get<std::string>());
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        frames_.pop_back();
        break;
      case json::parse_event_t::value:
        if (!frames_.empty()) ++frames_.back().items;
        break;
    }
  }

  [[nodiscard]] bool too_deep() const { return too_deep_; }

 private:
  struct Frame {
    std::string pointer;
    bool array = false;
    std::size_t items = 0;
    std::set<std::string> keys;
    std::string key;
  };

  void open(bool array) {
    Frame frame;
    frame.array = array;
    if (!frames_.empty()) {
      Frame& parent = frames_.back();
      frame.pointer =
          pointer_to(parent.pointer, parent.array ? std::to_string(parent.items) : parent.key);
      ++parent.items;
    }
    frames_.push_back(std::move(frame));
    too_deep_ = too_deep_ || frames_.size() > max_depth;
  }

  void key(const std::string& name) {
    Frame& frame = frames_.back();
    frame.key = name;
    if (!frame.keys.insert(name).second)
      findings_.add(pointer_to(frame.pointer, name), "this key is given twice: keep one of them");
  }

  Findings& findings_;
  std::vector<Frame> frames_;
  bool too_deep_ = false;
};

// The schema of a value, "$ref": "#/definitions/…" followed.
const json& resolved(const json& root, const json& schema) {
  if (!schema.contains("$ref")) return schema;
  return root.at(json::json_pointer(schema.at("$ref").get<std::string>().substr(1)));
}

const json* schema_of_member(const json& root, const json& schema, const std::string& key) {
  if (schema.contains("properties") && schema.at("properties").contains(key))
    return &resolved(root, schema.at("properties").at(key));
  const auto others = schema.find("additionalProperties");
  return others != schema.end() && others->is_object() ? &resolved(root, *others) : nullptr;
}

// The schema that applies at a place, or null when the place is unknown to the schema.
const json* schema_at(const json& root, const std::vector<std::string>& path) {
  const json* at = &root;
  for (const std::string& step : path) {
    if (at->contains("items"))
      at = &resolved(root, at->at("items"));
    else
      at = schema_of_member(root, *at, step);
    if (at == nullptr) return nullptr;
  }
  return at;
}

std::string description_of(const json& schema) {
  return schema.value("description", std::string("another value"));
}

// What is wrong with a key of an object, or "".
std::string key_problem(const json& schema, const std::string& key) {
  if (schema.contains("propertyNames")) {  // a map: any key of this form
    const json& names = schema.at("propertyNames");
    if (std::regex_search(key, std::regex(names.at("pattern").get<std::string>()))) return "";
    return "expected " + description_of(names) + "; found " + shown(key);
  }
  if (!schema.contains("properties") || schema.at("properties").contains(key)) return "";
  std::vector<std::string> known;
  std::string all;
  for (const auto& property : schema.at("properties").items()) {
    known.push_back(property.key());
    all += (all.empty() ? "" : ", ") + property.key();
  }
  const std::string nearest = nearest_word(key, known);
  if (!nearest.empty()) return "unknown key; did you mean \"" + nearest + "\"?";
  return "unknown key; the keys here are " + all;
}

// valijson names only the first unknown key of an object and none that is missing by what it is
// for.
void check_keys(const json& root, const json& schema, const json& value, const std::string& pointer,
                Findings& findings) {
  if (value.is_array() && schema.contains("items")) {
    for (std::size_t i = 0; i < value.size(); ++i)
      check_keys(root, resolved(root, schema.at("items")), value[i],
                 pointer_to(pointer, std::to_string(i)), findings);
  }
  if (!value.is_object()) return;
  for (const auto& member : value.items()) {
    const std::string below = pointer_to(pointer, member.key());
    const std::string problem = key_problem(schema, member.key());
    if (!problem.empty()) {
      findings.add(below, problem);
    } else if (const json* sub = schema_of_member(root, schema, member.key())) {
      check_keys(root, *sub, member.value(), below, findings);
    }
  }
  for (const auto& key : schema.value("required", json::array())) {
    if (value.contains(key.get<std::string>())) continue;
    const json* sub = schema_of_member(root, schema, key.get<std::string>());
    findings.add(pointer,
                 "the key " + key.dump() + " is missing: expected " + description_of(*sub));
  }
}

// valijson's context is {"<root>", "[nodes]", "[a]", …}.
std::vector<std::string> path_of(const std::vector<std::string>& context) {
  std::vector<std::string> path;
  for (std::size_t i = 1; i < context.size(); ++i)
    path.push_back(context[i].substr(1, context[i].size() - 2));
  return path;
}

// These repeat for each enclosing object what is said at the place itself, or by check_keys.
bool is_echo(const std::string& description) {
  for (const char* start :
       {"Failed to validate ", "Object contains a property ", "Missing required property "})
    if (description.starts_with(start)) return true;
  return false;
}

void explain_violation(const json& root, const json& document,
                       const valijson::ValidationResults::Error& violation, Findings& findings) {
  const std::vector<std::string> path = path_of(violation.context);
  std::string pointer;
  for (const std::string& step : path)
    pointer = pointer_to(pointer, step);
  const json* schema = schema_at(root, path);
  const json::json_pointer place(pointer);
  if (schema == nullptr || !document.contains(place)) {
    findings.add(pointer, violation.description);
    return;
  }
  findings.add(pointer,
               "expected " + description_of(*schema) + "; found " + shown(document.at(place)));
}

}  // namespace

std::string shown(const json& value) {
  if (value.is_object())
    return "an object with " + std::to_string(value.size()) +
           (value.size() == 1 ? " key" : " keys");
  if (value.is_array())
    return "a list of " + std::to_string(value.size()) + (value.size() == 1 ? " item" : " items");
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > max_shown_bytes) {
    std::size_t end = max_shown_bytes;  // not in the middle of a UTF-8 sequence
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U)
      --end;
    text = text.substr(0, end) + "…";
  }
  return text;
}

json parse_document(const std::string& text, Findings& findings) {
  if (text.size() > max_document_bytes) {
    findings.add("", "the document has " + std::to_string(text.size()) +
                         " bytes, more than the allowed 1 MiB");
    return nullptr;
  }
  DuplicateKeys keys(findings);
  try {
    json document = json::parse(text, [&keys](int, json::parse_event_t event, json& parsed) {
      keys.take(event, parsed);
      // Cutting off what is too deep keeps the recursion over the document short.
      return !keys.too_deep();
    });
    if (!keys.too_deep()) return document;
    findings.add("", "the document is nested more than 32 levels deep");
  } catch (const json::parse_error& error) {
    std::string reason = error.what();
    const std::size_t cut = reason.rfind(": ");
    const std::size_t syntax = reason.find("syntax error");
    if (syntax != std::string::npos)
      reason = reason.substr(syntax);
    else if (cut != std::string::npos)
      reason = reason.substr(cut + 2);
    findings.add("", "not valid JSON at " + place_of(text, error.byte) + ": " + reason);
  } catch (const json::out_of_range&) {
    findings.add("", "a number in the document is too large");
  }
  return nullptr;
}

void check_schema(const json& document, std::string_view schema_text, Findings& findings) {
  const json root = json::parse(schema_text);
  valijson::Schema schema;
  valijson::SchemaParser parser;  // draft 7
  const valijson::adapters::NlohmannJsonAdapter schema_adapter(root);
  parser.populateSchema(schema_adapter, schema);

  valijson::Validator validator(valijson::Validator::kStrongTypes);
  valijson::ValidationResults results;
  const valijson::adapters::NlohmannJsonAdapter document_adapter(document);
  const bool valid = validator.validate(schema, document_adapter, &results);

  check_keys(root, root, document, "", findings);
  for (const auto& violation : results)
    if (!is_echo(violation.description)) explain_violation(root, document, violation, findings);
  if (valid || !findings.empty()) return;
  for (const auto& violation : results)
    findings.add("", violation.description);
  HAVM_ASSERT(!findings.empty(), "a document that breaks its schema must not pass unreported");
}

}  // namespace havm
