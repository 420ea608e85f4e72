-- Pandoc filter for one page of the site. Metadata: `page`, its path in the repository; `out`, the file in
-- which links to sources are noted, one a line, for scripts/build-docs.sh to make pages of; `tags`, lines
-- "PATH PAGE" of the reference.

local page, out, reference = "", "", {}

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

-- "docs/maths", "../../core/x.hpp" -> "core/x.hpp"
local function join(folder, target)
  local parts = {}
  for part in (folder .. "/" .. target):gmatch("[^/]+") do
    if part == ".." then
      table.remove(parts)
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  return table.concat(parts, "/")
end

local function folder_of(path) return path:match("^(.*)/[^/]*$") or "" end
local function up_from(path) return ("../"):rep(select(2, path:gsub("/", ""))) end

-- Where a path of the repository is on the site.
local function place(path)
  if path == "README.md" then return "index.html" end
  if path:match("%.md$") then return (path:gsub("%.md$", ".html")) end
  if path:match("^docs/images/") then return path end
  if reference[path] then return "reference/" .. reference[path] end
  local note = assert(io.open(out, "a"))
  note:write(path, "\n")
  note:close()
  return "source/" .. path .. ".html"
end

local function resolve(target)
  if target:match("^%a+:") or target:match("^#") then return target end
  local path, anchor = target:match("^([^#]*)(.*)$")
  path = join(folder_of(page), path)
  if not read(path) and not os.rename(path, path) then
    error(page .. ": there is no " .. path)
  end
  return up_from(page) .. place(path) .. anchor
end

local function code_of(line) return line:match("^<!%-%- ([%w_/%.]+)[^>]* %-%->%s*$") end

return {
  { Meta = function(meta)
      page = pandoc.utils.stringify(meta.page)
      out = pandoc.utils.stringify(meta.out)
      for path, target in (read(pandoc.utils.stringify(meta.tags)) or ""):gmatch("(%S+) (%S+)\n") do
        reference[path] = target
      end
      meta.root = up_from(page)
      return meta
    end },
  { Link = function(link)
      link.target = resolve(link.target)
      return link
    end,
    Image = function(image)
      image.src = resolve(image.src)
      return image
    end,
    -- The comment above quoted code says where it is from: so does the site.
    RawBlock = function(block)
      local path = code_of(block.text)
      if not path then return {} end
      local link = pandoc.Link(path, up_from(page) .. place(path))
      return pandoc.Div(pandoc.Plain { link }, { class = "from" })
    end,
    -- MathML has upright names as operators only; browsers leave letters slanted.
    Math = function(math)
      math.text = math.text:gsub("\\mathrm(%b{})", "\\operatorname%1")
      return math
    end,
    -- Wide tables scroll by themselves.
    Table = function(t) return pandoc.Div(t, { class = "table" }) end },
  { Pandoc = function(doc)
      for _, block in ipairs(doc.blocks) do
        if block.t == "Header" and block.level == 1 then
          local title = pandoc.utils.stringify(block)
          if title ~= "capsfw" then doc.meta.title = doc.meta.title or title end
          break
        end
      end
      return doc
    end },
}
