#include "agent/cli/text_table.hpp"

#include <algorithm>
#include <array>
#include <cstdio>

#include "vmrepl/base/assert.hpp"

namespace havm {
namespace {

std::string padding(std::size_t wide, std::size_t used) {
  return std::string(wide > used ? wide - used : 0, ' ');
}

std::string render_row(const std::vector<Cell>& cells, const std::vector<std::size_t>& widths,
                       const Terminal& terminal) {
  std::string line;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    line += " " + terminal.coloured(cells[i].text, cells[i].colour);
    if (i + 1 < cells.size()) line += padding(widths[i] + 2, display_columns(cells[i].text));
  }
  return line + "\n";
}

}  // namespace

void TextTable::add_row(std::vector<Cell> cells) {
  HAVM_ASSERT(cells.size() == header_.size(), "a row has a cell for each column");
  for (Cell& cell : cells)
    cell.text = printable(cell.text);
  rows_.push_back(std::move(cells));
}

std::string TextTable::render(const Terminal& terminal, bool quiet) const {
  std::vector<std::size_t> widths(header_.size(), 0);
  for (std::size_t i = 0; i < header_.size() && !quiet; ++i)
    widths[i] = display_columns(header_[i]);
  for (const auto& row : rows_)
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], display_columns(row[i].text));
  std::string out;
  if (!quiet) {
    const std::vector<Cell> titles(header_.begin(), header_.end());
    out += render_row(titles, widths, terminal);
    std::size_t rule = 0;
    for (const std::size_t width : widths)
      rule += width + 3;
    out += std::string(rule, '-') + "\n";
  }
  for (const auto& row : rows_)
    out += render_row(row, widths, terminal);
  return out;
}

std::string key_value_line(const std::string& key, const std::string& value) {
  constexpr std::size_t value_column = 16;
  const std::string label = printable(key) + ":";
  return label + padding(value_column - 1, display_columns(label)) + " " + printable(value) + "\n";
}

std::string bytes_text(double bytes) {
  constexpr std::array<const char*, 6> units{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
  return text.data();
}

}  // namespace havm
