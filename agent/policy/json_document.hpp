// The job of these functions: read a JSON document that a person wrote and check it against one of
// our schemas, reporting everything that is wrong at once. Strict: a key given twice and an unknown
// key are findings (with a guess at what was meant). Every description in a schema completes
// "expected …".
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "agent/policy/findings.hpp"

namespace havm {

// The document, or null when the text is no JSON at all (one finding with line and column).
// At most 1 MiB and 32 levels deep.
nlohmann::json parse_document(const std::string& text, Findings& findings);

// Adds a finding for each place where `document` breaks `schema` (JSON Schema draft 7).
void check_schema(const nlohmann::json& document, std::string_view schema, Findings& findings);

// How a value is shown in a message: text quoted and cut, containers by their size.
std::string shown(const nlohmann::json& value);

// Our schemas, conf/schema/*.json as they were when this was built.
extern const char* const cluster_schema;
extern const char* const policy_schema;
extern const char* const vm_schema;

}  // namespace havm
