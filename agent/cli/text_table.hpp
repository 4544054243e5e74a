// The job of TextTable and key_value_line: rows and key-value lists with virsh's look, to the byte.
#pragma once

#include <string>
#include <vector>

#include "agent/cli/terminal.hpp"

namespace havm {

struct Cell {
  std::string text;
  Colour colour = Colour::plain;

  Cell(std::string text_, Colour colour_ = Colour::plain)
      : text(std::move(text_)), colour(colour_) {}
  Cell(const char* text_) : text(text_) {}
};

class TextTable {
 public:
  explicit TextTable(std::vector<std::string> header) : header_(std::move(header)) {}
  // As many cells as the header has.
  void add_row(std::vector<Cell> cells);
  // One space before each cell, two behind each but the last, all of a column equally wide; header
  // and dashed rule unless `quiet`.
  [[nodiscard]] std::string render(const Terminal& terminal, bool quiet) const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<Cell>> rows_;
};

// "Name:           web1\n": the value begins in column 16.
std::string key_value_line(const std::string& key, const std::string& value);

// "1.50 GiB", "512 B"
std::string bytes_text(double bytes);

}  // namespace havm
