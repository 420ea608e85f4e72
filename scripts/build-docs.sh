#!/usr/bin/env bash
# Makes the documentation site: the pages of the repository and the reference of the public headers, as plain
# files that work offline.
#   scripts/build-docs.sh [OUT]     into OUT (default out/site); open OUT/index.html
#   scripts/build-docs.sh --check   only looks for public symbols without a comment; exit code 77
#                                   without Doxygen
set -euo pipefail
out=${1:-out/site}
case "$out" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;;
  --check) ;;
  -*) echo "build-docs: there is no option $out" >&2; exit 2 ;;
esac
[ "$out" = --check ] || { mkdir -p "$out" && out=$(cd "$out" && pwd); }
cd "$(dirname "$0")/.."
need() {
  command -v "$1" >/dev/null && return
  echo "build-docs: $1 is not installed. Hint: scripts/install-deps.sh docs" >&2
  exit "$2"
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The public headers, as cmake/headers.cmake lists them; a kind of output and further settings.
headers() {
  local folder
  { grep -o '\bcore/[a-z_0-9]*\.hpp' cmake/headers.cmake | grep -v version.hpp
    grep -o 'SOURCE_DIR}/[a-z]*/\*\.hpp' cmake/headers.cmake | cut -d/ -f2 |
      while read -r folder; do ls "$folder"/*.hpp; done
  } | sort -u
}
reference() {
  { cat docs/site/Doxyfile; echo INPUT = docs/site/reference.dox $(headers); printf '%s\n' "$@"; } >"$work/Doxyfile"
  doxygen "$work/Doxyfile"
}

if [ "$out" = --check ]; then
  need doxygen 77
  reference "OUTPUT_DIRECTORY = $work" 'GENERATE_HTML = NO' 'GENERATE_XML = YES' 'XML_PROGRAMLISTING = NO' \
    'WARN_AS_ERROR = FAIL_ON_WARNINGS'
  count=$(grep -o '<member ' "$work/xml/index.xml" | wc -l)
  [ "$count" -gt 1000 ] || { echo "build-docs: only $count symbols were found" >&2; exit 1; }
  echo "$count public symbols, each with a comment"
  exit 0
fi
need doxygen 1
need pandoc 1

# Made anew, so that nothing of an earlier run stays. Only what this script made is removed.
[ -z "$(ls -A "$out")" ] || [ -e "$out/.capsfw-site" ] ||
  { echo "build-docs: $out is not empty and not a site of ours" >&2; exit 1; }
rm -rf "${out:?}"/*
touch "$out/.capsfw-site"

doxygen -l "$work/layout.xml"
sed -i 's|<tab type="mainpage".*|<tab type="user" url="../index.html" title="capsfw"/>\n    &|' "$work/layout.xml"
reference "OUTPUT_DIRECTORY = $out" 'HTML_OUTPUT = reference' "LAYOUT_FILE = $work/layout.xml" \
  "GENERATE_TAGFILE = $work/tags.xml"
# "core/tensor.hpp tensor_8hpp.html", and the folders.
awk 'function value(s) { gsub(/.*<[a-z]*>|<\/[a-z]*>.*/, "", s); return s }
     /<compound kind="file">/ { kind = "file" } /<compound kind="dir">/ { kind = "dir" }
     /<\/compound>/ { kind = "" }
     kind && /^    <name>/ { name = value($0) } kind && /^    <path>/ { path = value($0) }
     kind && /^    <filename>/ {
       file = value($0)
       sub(/\.html$/, "", file)
       print (kind == "dir" ? path : path name), file ".html"
       kind = ""
     }' "$work/tags.xml" | sed "s|^$PWD/||; s|/ | |" >"$work/tags"
grep -q '^core/tensor.hpp tensor_8hpp' "$work/tags" || { echo "build-docs: no tags" >&2; exit 1; }

common=(--metadata "tags=$work/tags" --metadata "out=$work/sources" --mathml --wrap=none)
pandoc -f gfm -t html --lua-filter docs/site/nav.lua docs/index.md >"$work/nav.html"
page() {  # page PATH FILE INPUT [FORMAT]: a page of the site from Markdown; its links are those of PATH
  local root; root=$(sed 's|[^/]*/|../|g; s|[^/]*$||' <<<"$2")
  mkdir -p "$(dirname "$out/$2")"
  sed "s|@ROOT@|$root|g; s|href=\"$root$2\"|& aria-current=\"page\"|" "$work/nav.html" >"$work/nav"
  pandoc -f "${4:-gfm+tex_math_dollars}" -t html5 --template docs/site/page.html --lua-filter docs/site/page.lua \
    "${common[@]}" --metadata "page=$1" -V "nav=$(cat "$work/nav")" -o "$out/$2" "$3"
}
touch "$work/sources"
for md in *.md $(find docs apps -name '*.md' | sort); do
  html=${md%.md}.html
  [ "$md" = README.md ] && html=index.html
  page "$md" "$html" "$md"
done
mkdir -p "$out/docs" && cp -r docs/images "$out/docs/" && cp docs/site/style.css "$out/"

# The sources and folders that pages link to.
sort -u "$work/sources" -o "$work/sources"
while read -r path; do
  if [ -d "$path" ]; then
    root=$(sed 's|[^/]*/|../|g; s|[^/]*$||' <<<"source/$path")
    echo "# $path"
    find "$path" -type f | sort | while read -r file; do
      name="<code>${file#"$path"/}</code>"
      if target=$(awk -v f="$file" '$1 == f { print $2 }' "$work/tags") && [ -n "$target" ]; then
        name="<a href=\"${root}reference/$target\">$name</a>"
      elif grep -qxF "$file" "$work/sources"; then
        name="<a href=\"${root}source/$file.html\">$name</a>"
      fi
      echo "- $name"
    done
  else
    case "$path" in
      *.cpp | *.hpp) kind=cpp ;; *.sh) kind=bash ;; *CMakeLists.txt | *.cmake) kind=cmake ;; *) kind=text ;;
    esac
    printf '# %s\n\n~~~~~~~~ {.%s .numberLines}\n%s\n~~~~~~~~\n' "$path" "$kind" "$(cat "$path")"
  fi >"$work/source.md"
  page "source/$path.md" "source/$path.html" "$work/source.md" markdown
done <"$work/sources"

# Every link of the site leads to a page, and to a place in it.
find "$out" -name '*.html' ! -path "$out/reference/*" | sort >"$work/pages"
awk -v out="$out" -f docs/site/links.awk $(cat "$work/pages")
echo "build-docs: $(wc -l <"$work/pages") pages and the reference in $out/index.html"
