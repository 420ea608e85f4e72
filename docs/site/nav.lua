-- Pandoc filter: docs/index.md as the navigation of the site. The first link of every item is kept, by
-- its section; links start with "@ROOT@", which a page replaces by its way up.

local function place(target)
  local path = target:match("^%.%./(.*)$") or ("docs/" .. target)
  if path == "README.md" then return "index.html" end
  return (path:gsub("%.md", ".html"))
end

function Pandoc(doc)
  local html, open = {}, false
  local function put(...) html[#html + 1] = table.concat({ ... }) end
  for _, block in ipairs(doc.blocks) do
    if block.t == "Header" and block.level == 2 then
      if open then put("</ul></details>") end
      put("<details open><summary>", pandoc.utils.stringify(block), "</summary><ul>")
      open = true
    elseif block.t == "BulletList" and open then
      for _, item in ipairs(block.content) do
        local first = true
        pandoc.walk_block(pandoc.Div(item), { Link = function(link)
          if first and link.target:match("%.md$") then
            local text = pandoc.utils.stringify(link)
            if text:match("^%d%d%d%d$") then text = pandoc.utils.stringify(pandoc.Div(item)) end
            local title = link.title ~= "" and link.title or text
            put('<li><a href="@ROOT@', place(link.target), '">', title, "</a></li>")
            first = false
          end
        end })
      end
    end
  end
  if open then put("</ul></details>") end
  return pandoc.Pandoc { pandoc.RawBlock("html", table.concat(html, "\n")) }
end
