"""`streamlit run app.py`: from a question to a checked answer. The pages are in planner/ui."""

# Worker processes import this file again under another name; they need none of it.
if __name__ == "__main__":
    from planner.ui.pages import main

    main()
